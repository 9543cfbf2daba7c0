//! A configuration value that may hold a password: where it comes from, and never what it is.

use mainstay_domain::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};
use zeroize::Zeroizing;

use super::wire::Environment;

/// `{ env: NAME }`, `{ file: PATH }`, `{ command: "…" }`, or the text itself.
#[derive(Clone)]
pub enum SecretText {
    Plain(Zeroizing<String>),
    From(SecretFrom),
}

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretFrom {
    /// An environment variable.
    Env(String),
    /// The first line of a file that only its owner (and group) can read.
    File(PathBuf),
    /// The first line that a shell command writes.
    Command(String),
}

impl SecretText {
    /// Fetches the value.
    ///
    /// # Errors
    /// `Usage`, naming the variable, the file or the command; never the value.
    pub fn resolve(&self, environment: Environment<'_>) -> Result<Zeroizing<String>, Failure> {
        let text = match self {
            SecretText::Plain(text) => return Ok(text.clone()),
            SecretText::From(SecretFrom::Env(name)) => {
                environment(name).map(Zeroizing::new).ok_or_else(|| {
                    Failure::usage(format!("the environment variable {name} is not set")).hint(
                        "It holds the address of the database: postgres://user:password@host:5432/database.",
                    )
                })?
            }
            SecretText::From(SecretFrom::File(path)) => {
                let unreadable = |e| Failure::usage(format!("cannot read {}", path.display())).caused_by(e);
                let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
                if mode & 0o007 != 0 {
                    return Err(Failure::usage(format!(
                        "everybody on this machine can use {}",
                        path.display()
                    ))
                    .hint(format!("Take that right away: chmod o-rwx {}", path.display())));
                }
                Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?)
            }
            SecretText::From(SecretFrom::Command(command)) => {
                let output = Command::new("/bin/sh")
                    .args(["-c", command])
                    .stdin(std::process::Stdio::null())
                    .stderr(std::process::Stdio::inherit())
                    .output()
                    .map_err(|e| Failure::usage(format!("cannot run {command:?}")).caused_by(e))?;
                if !output.status.success() {
                    return Err(Failure::usage(format!("{command:?} failed: {}", output.status)));
                }
                let output = Zeroizing::new(output.stdout);
                Zeroizing::new(String::from_utf8_lossy(&output).into_owned())
            }
        };
        let line = text.lines().next().unwrap_or("").trim();
        if line.is_empty() {
            return Err(Failure::usage(format!("{} is empty", self.describe())));
        }
        Ok(Zeroizing::new(line.to_owned()))
    }

    fn describe(&self) -> String {
        match self {
            SecretText::Plain(_) => "the value".to_owned(),
            SecretText::From(SecretFrom::Env(name)) => format!("the environment variable {name}"),
            SecretText::From(SecretFrom::File(path)) => format!("the file {}", path.display()),
            SecretText::From(SecretFrom::Command(command)) => format!("what {command:?} writes"),
        }
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> SecretText {
        SecretText::Plain(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretText::Plain(_) => f.write_str("(hidden)"),
            SecretText::From(from) => from.fmt(f),
        }
    }
}

impl Serialize for SecretText {
    /// A plain text is not written out: what is shown of a configuration carries no password.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            SecretText::Plain(_) => s.serialize_str("(hidden)"),
            SecretText::From(from) => from.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = SecretText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ env: NAME }, { file: PATH }, { command: \"…\" } or a text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretText, E> {
                Ok(SecretText::from(text))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SecretText, A::Error> {
                SecretFrom::deserialize(de::value::MapAccessDeserializer::new(map)).map(SecretText::From)
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let from = generator.subschema_for::<SecretFrom>();
        schemars::json_schema!({
            "description": "Where a value that may hold a password comes from, or the value itself",
            "anyOf": [from, { "type": "string" }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_fetched_and_not_shown() {
        let plain: SecretText = serde_json::from_str("\"postgres://u:hunter2@h\"").unwrap();
        assert!(!format!("{plain:?}{}", serde_json::to_string(&plain).unwrap()).contains("hunter2"));
        let environment = |name: &str| (name == "DB").then(|| "from the environment\n".to_owned());
        let fetch = |json: &str| serde_json::from_str::<SecretText>(json).unwrap().resolve(&environment);
        assert_eq!(fetch(r#"{"env":"DB"}"#).unwrap().as_str(), "from the environment");
        assert_eq!(fetch(r#"{"command":"echo said"}"#).unwrap().as_str(), "said");
        assert!(fetch(r#"{"env":"NONE"}"#).unwrap_err().message.contains("NONE is not set"));
        assert!(fetch(r#"{"command":"exit 3"}"#).is_err());
        assert!(serde_json::from_str::<SecretText>(r#"{"environment":"DB"}"#).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "in a file\n").unwrap();
        let json = format!(r#"{{"file":{:?}}}"#, file.path());
        assert_eq!(fetch(&json).unwrap().as_str(), "in a file");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(fetch(&json).unwrap_err().message.contains("everybody"));
    }
}
