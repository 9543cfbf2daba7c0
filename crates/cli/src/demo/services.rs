//! What the company has beside its database and its files: sessions and a queue in Redis, and its configuration.

use super::remove_folder;
use mainstay_domain::{Failure, Result};
use mainstay_sources::redis::{self, Sandbox};
use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

/// Its Redis.
pub struct Cache(Sandbox);

/// A hash of each key's value, by name.
type Keys = BTreeMap<Vec<u8>, u64>;

impl Cache {
    /// A throw-away Redis or Valkey; `None` if neither is installed.
    pub fn start() -> Result<Option<Cache>> {
        let Ok(program) = redis::program(None) else { return Ok(None) };
        let settings = [("repl-diskless-sync-delay", "0"), ("save", "3600 1")];
        let cache = Cache(Sandbox::start_with(&program, &settings, &mut |_| Ok(()))?);
        let mut client = cache.0.connect()?;
        for n in 0..500 {
            let (key, user) = (format!("session:{n:04}"), format!("user-{}", n * 7 % 200));
            client.ask(&["HSET", &key, "user", &user, "cart", &(n % 9).to_string()])?;
            client.ask(&["EXPIRE", &key, "86400"])?;
            client.ask(&["ZADD", "last-seen", &(1_795_000_000 + n).to_string(), &user])?;
        }
        for n in 1..=40 {
            client.ask(&["RPUSH", "queue:mail", &format!("reminder for appointment {n}")])?;
        }
        Ok(Some(cache))
    }

    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// As an application would be given it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.0.socket().display())
    }

    pub fn lose(&self) -> Result<()> {
        self.0.connect()?.ask(&["FLUSHALL"])?;
        Ok(())
    }

    pub fn keys(&self) -> Result<Keys> {
        let mut client = self.0.connect()?;
        let redis::Value::Array(names) = client.ask(&["KEYS", "*"])? else { return Ok(Keys::new()) };
        let mut keys = Keys::new();
        for name in names {
            let redis::Value::Bulk(name) = name else { continue };
            let mut hasher = DefaultHasher::new();
            if let redis::Value::Bulk(dump) = client.command(&[b"DUMP", &name])? {
                dump.hash(&mut hasher);
            }
            keys.insert(name, hasher.finish());
        }
        Ok(keys)
    }
}

/// The folder of its configuration.
pub struct Settings(pub PathBuf);

const FILES: [(&str, &str); 2] = [
    (
        "clinic.env",
        "APP_ENV=production\nAPP_URL=https://clinic.example\nSESSION_SECRET=c2VjcmV0LW9mLXRoZS1kZW1v\nMAIL_FROM=desk@clinic.example\n",
    ),
    (
        "nginx.conf",
        "server {\n    listen 443 ssl;\n    server_name clinic.example;\n    location / { proxy_pass http://127.0.0.1:3000; }\n}\n",
    ),
];

impl Settings {
    pub fn make(&self) -> Result<()> {
        let made = fs::create_dir(&self.0)
            .and_then(|()| FILES.iter().try_for_each(|(name, text)| fs::write(self.0.join(name), text)));
        made.map_err(|error| {
            Failure::failed("the company's configuration could not be made").caused_by(error)
        })
    }

    pub fn lose(&self) -> Result<()> {
        remove_folder(&self.0)
    }

    /// Whether a folder, or one below it, holds the files as they were.
    pub fn are_in(folder: &Path) -> bool {
        FILES
            .iter()
            .all(|(name, text)| fs::read_to_string(folder.join(name)).is_ok_and(|found| found == *text))
    }
}
