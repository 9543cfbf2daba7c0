//! Replication slots: how much log a server keeps for somebody who has not taken it yet.
//!
//! A slot whose receiver is away keeps log until the server's disk is full, and the server stops. A limit
//! (`max_slot_wal_keep_size`) makes it give up the slot instead, and then the receiver has a gap. Both are to be seen coming.

use crate::postgres::wire::Connection;
use mainstay_domain::{ByteSize, Result, wal::Lsn};
use serde::Serialize;

/// A slot as the server shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    pub name: String,
    /// Somebody receives from it now.
    pub active: bool,
    /// From where on the server keeps the log.
    pub restart_lsn: Option<Lsn>,
    /// How much that is by now.
    pub retained_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved`, `lost`: whether the log that it needs is there.
    pub wal_status: Option<String>,
    /// How much may still be written before the server gives it up, if there is a limit.
    pub safe_bytes: Option<u64>,
}

/// How a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    Good,
    /// It keeps more than the limit.
    Heavy,
    /// The server is about to give it up.
    Endangered,
    /// The server has given it up.
    Lost,
}

impl Slot {
    /// Judges a slot by what it may keep.
    pub fn standing(&self, limit: ByteSize) -> Standing {
        match self.wal_status.as_deref() {
            Some("lost") => Standing::Lost,
            Some("unreserved") => Standing::Endangered,
            _ if self.retained_bytes.is_some_and(|bytes| bytes > limit.0) => Standing::Heavy,
            _ => Standing::Good,
        }
    }

    /// What there is to say of it, if it does not stand well.
    pub fn concern(&self, limit: ByteSize) -> Option<String> {
        let retained = ByteSize(self.retained_bytes.unwrap_or_default());
        let used = if self.active { "its receiver does not keep up" } else { "nobody receives from it" };
        let name = &self.name;
        match self.standing(limit) {
            Standing::Good => None,
            Standing::Heavy => Some(format!(
                "the replication slot {name} makes the server keep {retained} of WAL (limit {limit}), and {used}: start or mend its \
                 receiver, or drop it (SELECT pg_drop_replication_slot('{name}')), before the server's disk is full"
            )),
            Standing::Endangered => Some(format!(
                "the server is about to give up the replication slot {name} ({retained} behind, more than max_slot_wal_keep_size), and \
                 {used}: without it the WAL has a gap"
            )),
            Standing::Lost => Some(format!(
                "the server has given up the replication slot {name}: it keeps nothing any more. Start mainstay wal receive APP again: it makes \
                 the slot anew, and goes on if the server still has the WAL that comes next; if not, it says so (--accept-gap, and a new \
                 base backup). A slot of somebody else's is dropped with SELECT pg_drop_replication_slot('{name}')"
            )),
        }
    }
}

/// All slots of a server.
pub fn slots(connection: &mut Connection) -> Result<Vec<Slot>> {
    let rows = connection.query(
        "SELECT slot_name, active, restart_lsn, wal_status, safe_wal_size,
                pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
                                     THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                                     ELSE pg_current_wal_lsn() END, restart_lsn)::bigint
           FROM pg_replication_slots WHERE NOT temporary ORDER BY slot_name",
    )?;
    let number =
        |text: Option<String>| text.and_then(|text| text.parse::<i64>().ok()).map(|n| n.max(0) as u64);
    Ok(rows
        .iter()
        .map(|row| Slot {
            name: row.text(0),
            active: row.bool(1),
            restart_lsn: row.opt(2).and_then(|text| text.parse().ok()),
            wal_status: row.opt(3),
            safe_bytes: number(row.opt(4)),
            retained_bytes: number(row.opt(5)),
        })
        .collect())
}

/// Whether the server waits for a receiver of this name before it acknowledges commits; `None` if none is connected.
pub fn is_waited_for(connection: &mut Connection, application_name: &str) -> Result<Option<bool>> {
    let answer = connection.query_text(&format!(
        "SELECT bool_or(sync_state IN ('sync', 'quorum')) FROM pg_stat_replication WHERE application_name = {}",
        crate::postgres::wire::quote_literal(application_name)
    ))?;
    Ok(answer.map(|text| text == "t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_keeps_too_much_or_is_given_up_is_a_concern() {
        let slot = Slot {
            name: "mainstay_shop_db".into(),
            active: false,
            restart_lsn: Some(Lsn(1)),
            retained_bytes: Some(100),
            wal_status: Some("reserved".into()),
            safe_bytes: None,
        };
        assert_eq!(slot.concern(ByteSize(100)), None);
        let heavy = slot.concern(ByteSize(99)).unwrap();
        assert!(heavy.contains("mainstay_shop_db") && heavy.contains("nobody receives"), "{heavy}");
        for (status, expected) in [("unreserved", Standing::Endangered), ("lost", Standing::Lost)] {
            let slot = Slot { wal_status: Some(status.into()), ..slot.clone() };
            assert_eq!(slot.standing(ByteSize(1000)), expected);
            assert!(slot.concern(ByteSize(1000)).is_some());
        }
    }
}
