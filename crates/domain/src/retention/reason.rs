//! Why a recovery point stays or goes, in words for the person who asks.

use super::Rule;
use crate::{PointId, Time, point::State, time::Span};
use serde::Serialize;
use std::fmt;

/// One reason. Shown as half a sentence that continues "kept: …" or "goes: …".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Keeps: somebody placed a hold.
    Held { kind: String, by: String, until: Option<Time> },
    /// Keeps: dated after now.
    Future { started: Time },
    /// Keeps: restored and compared, and nothing after it.
    LastProven,
    /// Keeps: nothing complete is newer.
    Newest,
    /// Keeps: something newer is complete, but does not hold these sources.
    NewestOf { sources: Vec<String> },
    /// Keeps: newer ones hold only parts of these sources.
    NewestWhole { sources: Vec<String> },
    /// Keeps: as `NewestOf`, of sources that are not backed up any more. Nothing will ever take its place, so a person decides.
    NewestOfRemoved { sources: Vec<String>, point: PointId },
    /// Keeps: not complete, and nothing complete has followed.
    NothingCompleteSince { state: State },
    /// Keeps: known to be damaged, and nothing whole and complete has followed.
    NothingWholeSince,
    /// Keeps: a counting rule chose it, as the `nth` of `of`.
    Rule { policy: String, rule: Rule, nth: u32, of: u32, slot: Option<String> },
    /// Keeps: younger than the rule `within` says.
    Within { policy: String, span: Span, until: Time },
    /// Keeps: made by hand, without an end.
    Manual,
    /// Keeps: its own end is yet to come.
    Until { until: Time },
    /// Keeps: something newer and complete is there, but not for long enough.
    Grace { by: PointId, until: Time },
    /// Keeps: the configuration does not know its policy.
    PolicyGone { policy: String },
    /// Keeps: its policy says nothing about keeping.
    NoRules { policy: String },
    /// Keeps: nothing was found that speaks for its going.
    Undecided,
    /// Goes: complete, but no rule chooses it, and it was superseded.
    NoRuleKeepsIt { policy: String, by: PointId, since: Time },
    /// Goes: incomplete or failed, and a complete one has followed.
    CompleteSince { state: State, by: PointId, since: Time },
    /// Goes: known to be damaged, and a whole and complete one has followed.
    WholeSince { by: PointId, since: Time },
    /// Goes: made by hand, until a time that has come.
    EndReached { until: Time },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Held { kind, by, until: Some(until) } => write!(f, "held ({kind}) by {by} until {until}"),
            Reason::Held { kind, by, until: None } => write!(f, "held ({kind}) by {by} until released"),
            Reason::Future { started } => {
                write!(f, "dated in the future ({started}): a clock was or is wrong, so it cannot be judged")
            }
            Reason::LastProven => f.write_str("the last point proven by a restore"),
            Reason::Newest => f.write_str("the newest complete point"),
            Reason::NewestOf { sources } => write!(f, "the newest complete one of {}", sources.join(", ")),
            Reason::NewestWhole { sources } => {
                write!(
                    f,
                    "the newest that has all of {}; newer ones leave parts of it out",
                    sources.join(", ")
                )
            }
            Reason::NewestOfRemoved { sources, point } => {
                let are = if sources.len() == 1 { "is" } else { "are" };
                write!(
                    f,
                    "the newest complete one of {}, which {are} no longer in the configuration: `mainstay delete {}` lets it go",
                    sources.join(", "),
                    point.short()
                )
            }
            Reason::NothingCompleteSince { state } => {
                write!(f, "{state}, but no complete point has followed")
            }
            Reason::NothingWholeSince => {
                f.write_str("damaged, but no complete point that is whole has followed")
            }
            Reason::Rule { policy, rule, nth, of, slot: Some(slot) } => {
                write!(f, "{rule} {nth} of {of} of policy {policy} ({slot})")
            }
            Reason::Rule { policy, rule, nth, of, slot: None } => {
                write!(f, "{rule} {nth} of {of} of policy {policy}")
            }
            Reason::Within { policy, span, until } => {
                write!(f, "within {span} of policy {policy}, until {until}")
            }
            Reason::Manual => f.write_str("made by hand and kept until deleted"),
            Reason::Until { until } => write!(f, "to be kept until {until}"),
            Reason::Grace { by, until } => {
                write!(f, "superseded by {} only a short time ago, stays until {until}", by.short())
            }
            Reason::PolicyGone { policy } => {
                write!(
                    f,
                    "its policy {policy} is not in the configuration any more, so no rule speaks about it"
                )
            }
            Reason::NoRules { policy } => {
                write!(f, "its policy {policy} has no rule for keeping, so all is kept")
            }
            Reason::Undecided => f.write_str("nothing says that it may go"),
            Reason::NoRuleKeepsIt { policy, by, since } => {
                write!(f, "no rule of policy {policy} keeps it; superseded by {} on {since}", by.short())
            }
            Reason::CompleteSince { state, by, since } => {
                write!(f, "{state}, and followed by the complete {} on {since}", by.short())
            }
            Reason::WholeSince { by, since } => {
                write!(f, "damaged, and followed by the complete {} on {since}", by.short())
            }
            Reason::EndReached { until } => write!(f, "made by hand to be kept until {until}"),
        }
    }
}
