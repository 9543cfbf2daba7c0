//! How a server's archiver stands: whether what it is to archive is archived (PostgreSQL manual, *pg_stat_archiver*).

use crate::postgres::wire::Connection;
use mainstay_domain::{Result, Time, time::SECOND};
use serde::Serialize;

/// What a server says of its archiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Archiver {
    /// It archives (`archive_mode` is on, and it is told how).
    pub on: bool,
    /// `archive_mode` is on, and nothing says how: the server keeps all its log.
    pub without_command: bool,
    pub last_archived: Option<String>,
    pub last_archived_at: Option<Time>,
    pub last_failed: Option<String>,
    pub last_failed_at: Option<Time>,
    pub failed_count: u64,
}

impl Archiver {
    /// The last thing that it tried did not work.
    pub fn is_failing(&self) -> bool {
        self.on
            && self
                .last_failed_at
                .is_some_and(|failed| self.last_archived_at.is_none_or(|done| failed > done))
    }

    /// What there is to say of it, if it does not stand well.
    pub fn concern(&self) -> Option<String> {
        if self.without_command {
            return Some(
                "archive_mode is on and archive_command is empty: nothing is archived, and the server keeps all its WAL until its disk \
                 is full"
                    .to_owned(),
            );
        }
        let (failed, at) = (self.last_failed.as_ref()?, self.last_failed_at?);
        let since = match (&self.last_archived, self.last_archived_at) {
            (Some(name), Some(at)) => format!("the last archived one is {name}, at {at}"),
            _ => "it has archived nothing yet".to_owned(),
        };
        self.is_failing().then(|| {
            format!(
                "the server's archiver fails: {failed} could not be archived at {at}; {since}. What the server's log says of it is the \
                 cause; until it is removed the server's disk fills, and nothing later can be returned to"
            )
        })
    }
}

/// Asks a server. A standby that archives nothing has nothing to say.
pub fn archiver(connection: &mut Connection) -> Result<Archiver> {
    // archive_library is known from PostgreSQL 15 on. Settings that this user may not see count as given.
    let rows = connection.query(
        "SELECT current_setting('archive_mode'),
                coalesce(nullif(current_setting('archive_command', true), '(disabled)'), ''),
                coalesce(current_setting('archive_library', true), ''),
                last_archived_wal, extract(epoch FROM last_archived_time)::numeric(20, 6)::text,
                last_failed_wal, extract(epoch FROM last_failed_time)::numeric(20, 6)::text, failed_count, pg_is_in_recovery()
           FROM pg_stat_archiver",
    )?;
    let time = |text: Option<String>| {
        let seconds: f64 = text?.parse().ok()?;
        Some(Time((seconds * SECOND as f64) as i64))
    };
    let row = rows.iter().next();
    let text = |at: usize| row.as_ref().and_then(|row| row.opt(at));
    let mode = text(0).unwrap_or_default();
    let active = mode == "always" || mode == "on" && text(8).as_deref() != Some("t");
    let told = [1, 2].into_iter().any(|at| text(at).is_some_and(|how| !how.is_empty()));
    Ok(Archiver {
        on: active && told,
        without_command: active && !told,
        last_archived: text(3),
        last_archived_at: time(text(4)),
        last_failed: text(5),
        last_failed_at: time(text(6)),
        failed_count: text(7).and_then(|count| count.parse().ok()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archiver_is_a_concern_when_the_last_thing_it_tried_failed() {
        let archiver = Archiver {
            on: true,
            without_command: false,
            last_archived: Some("000000010000000000000003".into()),
            last_archived_at: Some(Time(3)),
            last_failed: Some("000000010000000000000004".into()),
            last_failed_at: Some(Time(4)),
            failed_count: 7,
        };
        assert!(archiver.concern().unwrap().contains("000000010000000000000004"));
        assert_eq!(
            Archiver { last_archived_at: Some(Time(5)), ..archiver.clone() }.concern(),
            None,
            "it went on"
        );
        let never = Archiver { last_archived: None, last_archived_at: None, ..archiver.clone() };
        assert!(never.concern().unwrap().contains("nothing yet"));
        assert_eq!(Archiver { on: false, ..archiver.clone() }.concern(), None, "it is off by now");
        assert!(Archiver { on: false, without_command: true, ..archiver }.concern().is_some());
    }
}
