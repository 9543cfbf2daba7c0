//! The rules of a policy: how many of what it keeps, and for how long.

use crate::{Time, time::Span};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;

/// Which recovery points of a policy are kept: those that any of its rules chooses.
///
/// A rule by the calendar keeps, of each of the latest hours (days, weeks, months, years) in which there is a complete point,
/// the newest. Hours without a point do not count, so a pause in the backups deletes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The newest points, whenever they were made.
    #[serde(default, deserialize_with = "at_least_one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub last: Option<u32>,
    #[serde(default, deserialize_with = "at_least_one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub hourly: Option<u32>,
    #[serde(default, deserialize_with = "at_least_one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub daily: Option<u32>,
    /// Weeks begin on Monday.
    #[serde(default, deserialize_with = "at_least_one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub weekly: Option<u32>,
    #[serde(default, deserialize_with = "at_least_one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub monthly: Option<u32>,
    #[serde(default, deserialize_with = "at_least_one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub yearly: Option<u32>,
    /// Every point that is younger than this: 30d.
    #[serde(default, deserialize_with = "longer_than_nothing", skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
}

/// A rule that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        })
    }
}

impl Rule {
    /// The hour, day … of a time, as a person writes it; `None` for `last`, which knows no calendar.
    pub(super) fn slot(self, time: Time, zone: &TimeZone) -> Option<String> {
        let local = time.to_jiff().to_zoned(zone.clone());
        let text = match self {
            Rule::Last => return None,
            // With the offset: when clocks are set back, an hour comes twice.
            Rule::Hourly => local.strftime("%Y-%m-%d %H:00%:z").to_string(),
            Rule::Daily => local.strftime("%Y-%m-%d").to_string(),
            Rule::Weekly => {
                let week = local.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Rule::Monthly => local.strftime("%Y-%m").to_string(),
            Rule::Yearly => local.strftime("%Y").to_string(),
        };
        Some(text)
    }
}

impl Keep {
    /// Whether nothing is said at all: then everything is kept.
    pub fn is_empty(&self) -> bool {
        self.counts().next().is_none() && self.within.is_none_or(|span| span.nanoseconds <= 0)
    }

    /// The rules that count, each with its number.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Rule, u32)> {
        [
            (Rule::Last, self.last),
            (Rule::Hourly, self.hourly),
            (Rule::Daily, self.daily),
            (Rule::Weekly, self.weekly),
            (Rule::Monthly, self.monthly),
            (Rule::Yearly, self.yearly),
        ]
        .into_iter()
        .filter_map(|(rule, count)| count.filter(|count| *count > 0).map(|count| (rule, count)))
    }
}

/// `daily: 0` can only be a mistake: leaving the rule out says it plainly.
fn at_least_one<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    match Option::deserialize(d)? {
        Some(0) => Err(de::Error::custom("a rule keeps at least 1; leave it out to keep none by it")),
        count => Ok(count),
    }
}

fn longer_than_nothing<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Span>, D::Error> {
    match Option::<Span>::deserialize(d)? {
        Some(span) if span.nanoseconds <= 0 => {
            Err(de::Error::custom("`within` keeps for a time, such as 30d; leave it out to keep none by it"))
        }
        span => Ok(span),
    }
}
