//! What a server says of itself: who it is, how it keeps its data, how many keys it has, and what a backup should say about it.

use super::{
    client::{Client, Value},
    error::RedisError,
    facts::{Persistence, Server},
};
use mainstay_domain::{Severity, point::Problem};
use std::collections::BTreeMap;

/// The answers to INFO, and to CONFIG GET where it is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    fields: BTreeMap<String, String>,
    settings: BTreeMap<String, String>,
}

impl Info {
    pub fn ask(client: &mut Client) -> Result<Info, RedisError> {
        let text = client.ask(&["INFO"])?.text().unwrap_or_default();
        let mut info = Info { fields: parse(&text), settings: BTreeMap::new() };
        for name in ["save", "appendonly", "appenddirname", "appendfilename"] {
            match client.ask(&["CONFIG", "GET", name]) {
                Ok(Value::Array(pair)) => {
                    if let [_, value] = pair.as_slice() {
                        info.settings.insert(name.to_owned(), value.text().unwrap_or_default());
                    }
                }
                // Managed services hide it: what INFO says is enough to restore.
                Ok(_) | Err(RedisError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(info)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    pub fn server(&self) -> Server {
        let text = |name: &str| self.field(name).unwrap_or("unknown").to_owned();
        let valkey = self.field("valkey_version");
        Server {
            product: if valkey.is_some() { "valkey" } else { "redis" }.to_owned(),
            version: valkey.map_or_else(|| text("redis_version"), str::to_owned),
            mode: self.field("redis_mode").or(self.field("server_mode")).unwrap_or("standalone").to_owned(),
            role: text("role"),
        }
    }

    pub fn is_loading(&self) -> bool {
        self.field("loading") == Some("1")
    }

    pub fn persistence(&self) -> Persistence {
        let setting = |name: &str| self.settings.get(name).cloned();
        Persistence {
            save: setting("save"),
            append_only: self.field("aof_enabled") == Some("1"),
            append_directory: setting("appenddirname"),
            append_file: setting("appendfilename"),
            last_save: self.number("rdb_last_save_time"),
            last_save_ok: self.field("rdb_last_bgsave_status").is_none_or(|status| status == "ok"),
            last_append_ok: self.field("aof_last_write_status").is_none_or(|status| status == "ok"),
        }
    }

    /// Keys by database (`db0:keys=1,expires=0,…`).
    pub fn keyspace(&self) -> BTreeMap<u32, u64> {
        let of = |(name, value): (&String, &String)| {
            let number = name.strip_prefix("db")?.parse().ok()?;
            let keys = value.split(',').find_map(|part| part.strip_prefix("keys="))?;
            Some((number, keys.parse().ok()?))
        };
        self.fields.iter().filter_map(of).collect()
    }

    /// What whoever relies on this server should know.
    pub fn problems(&self) -> Vec<Problem> {
        let persistence = self.persistence();
        let mut found = Vec::new();
        let mut say = |message: &str| {
            let message = message.to_owned();
            found.push(Problem { severity: Severity::Warning, object: String::new(), message });
        };
        if persistence.save.as_deref() == Some("") && !persistence.append_only {
            say(
                "the server keeps nothing on disk (save \"\", appendonly no): after a crash only this backup is left",
            );
        }
        if !persistence.last_save_ok {
            say("the server's own last snapshot failed (rdb_last_bgsave_status): look into its log");
        }
        if !persistence.last_append_ok {
            say("the server could not write its append-only file (aof_last_write_status): look into its log");
        }
        if self.field("master_link_status") == Some("down") {
            say("it is a replica whose link to its master is down: it holds an old state");
        }
        if self.field("cluster_enabled") == Some("1") {
            say("it is one node of a cluster: only the slots that it serves are captured");
        }
        found
    }
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str, settings: &[(&str, &str)]) -> Info {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Info { fields: parse(text), settings: settings.iter().map(owned).collect() }
    }

    #[test]
    fn what_endangers_the_data_is_said_and_nothing_else() {
        let healthy = info("aof_enabled:0\r\nrdb_last_bgsave_status:ok\r\n", &[("save", "3600 1")]);
        assert!(healthy.problems().is_empty());
        let hidden = info("aof_enabled:0\r\n", &[]);
        assert!(hidden.problems().is_empty(), "a service that hides its settings is not accused");
        for (text, save, needle) in [
            ("aof_enabled:0\r\n", "", "nothing on disk"),
            ("aof_enabled:0\r\nrdb_last_bgsave_status:err\r\n", "1 1", "last snapshot failed"),
            ("aof_enabled:1\r\naof_last_write_status:err\r\n", "", "append-only"),
            ("aof_enabled:1\r\nrole:slave\r\nmaster_link_status:down\r\n", "", "old state"),
            ("aof_enabled:1\r\ncluster_enabled:1\r\n", "", "one node"),
        ] {
            let problems = info(text, &[("save", save)]).problems();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].message.contains(needle), "{problems:?}");
        }
    }

    #[test]
    fn a_server_is_known_by_its_own_name_and_its_keys_by_database() {
        let valkey = info(
            "redis_version:7.2.4\r\nvalkey_version:8.0.1\r\nrole:master\r\ndb0:keys=4,expires=1\r\ndb7:keys=2,expires=0\r\n",
            &[],
        );
        assert_eq!((valkey.server().product.as_str(), valkey.server().version.as_str()), ("valkey", "8.0.1"));
        assert_eq!(valkey.keyspace(), BTreeMap::from([(0, 4), (7, 2)]));
        assert_eq!(info("redis_version:7.0.15\r\n", &[]).server().product, "redis");
    }
}
