//! What looks like a secret is not shown. A guess, made to err on the side of hiding: it decides what a screen shows, and nothing
//! about what is stored.

use serde_json::Value;

pub const HIDDEN: &str = "(hidden)";

/// Words in the name of a setting whose value is nobody's business.
const NAMES: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "key",
    "credential",
    "auth",
    "private",
    "salt",
    "signature",
    "cookie",
    "session",
    "dsn",
    "cert",
];

/// A line of a configuration file, its secrets hidden: `NAME=value`, `name: value`, `"name": "value"`, `name value;`.
pub fn hide_line(line: &str) -> String {
    let assigned = line.find(['=', ':']).filter(|at| !line[*at..].starts_with("://"));
    // Directives of web servers have a blank in the place of a sign.
    let blank =
        || line.trim_start().find(char::is_whitespace).map(|at| at + line.len() - line.trim_start().len());
    let (name, value) = match assigned.or_else(blank) {
        Some(at) => line.split_at(at + line[at..].chars().next().map_or(0, char::len_utf8)),
        None => ("", line),
    };
    if names_secret(name) && !value.trim_matches([' ', '"', '\'', ',', '{', '[', ';']).is_empty() {
        return format!("{name}{}{HIDDEN}", if value.starts_with(' ') { " " } else { "" });
    }
    // A secret may stand anywhere in the line, in a header for example.
    let lower = line.to_ascii_lowercase();
    if ["bearer ", "basic ", "begin ", "identified by"].iter().any(|word| lower.contains(word)) {
        return HIDDEN.to_owned();
    }
    hide_tokens(&hide_logins(line))
}

/// A row of a table, its secrets hidden. Where one column names a setting (`{"name": "smtp_password", "value": …}`), the others
/// are its value.
pub fn hide_row(row: &str) -> String {
    match serde_json::from_str::<Value>(row) {
        Ok(value) => hide_value(value).to_string(),
        Err(_) => HIDDEN.to_owned(),
    }
}

fn hide_value(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let speaks =
                |value: &Value| value.as_str().is_some_and(|text| text.len() <= 100 && names_secret(text));
            let named = fields.iter().any(|(_, value)| speaks(value));
            let hide = |(name, value): (String, Value)| {
                let secret = names_secret(&name) && !is_label(&name);
                let of_setting = named && !speaks(&value) && !value.is_number() && !value.is_boolean();
                let shown = match value.is_null() || value.is_boolean() {
                    false if secret || of_setting => Value::String(HIDDEN.to_owned()),
                    _ => hide_value(value),
                };
                (name, shown)
            };
            Value::Object(fields.into_iter().map(hide).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(hide_value).collect()),
        Value::String(text) => Value::String(hide_tokens(&hide_logins(&text))),
        other => other,
    }
}

/// A column that is called `key` holds names more often than secrets; its values are judged by themselves.
fn is_label(name: &str) -> bool {
    matches!(name.to_ascii_lowercase().as_str(), "key" | "setting_key" | "config_key" | "name")
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|word| name.contains(word))
}

/// `scheme://user:password@host`: the password, and a password without a user.
fn hide_logins(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end =
            tail.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'')).unwrap_or(tail.len());
        match tail[..end].rfind('@') {
            Some(login) => {
                let user = tail[..login].split_once(':').map_or("", |(user, _)| user);
                out.push_str(&format!("{user}:{HIDDEN}"));
                rest = &tail[login..];
            }
            None => rest = tail,
        }
    }
    out + rest
}

/// Long runs of letters and digits that no word looks like.
fn hide_tokens(text: &str) -> String {
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-');
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(of_token) {
        out.push_str(&rest[..start]);
        let run = &rest[start..];
        let end = run.find(|c| !of_token(c)).unwrap_or(run.len());
        out.push_str(if looks_random(&run[..end]) { HIDDEN } else { &run[..end] });
        rest = &run[end..];
    }
    out + rest
}

/// At least 16 characters with letters and digits among them, and as many bits in each as a random text has: more than 3.
fn looks_random(run: &str) -> bool {
    // Parts of a path are words, each by itself.
    run.split('/').any(|part| {
        let letters = part.bytes().any(|b| b.is_ascii_alphabetic());
        let digits = part.bytes().filter(u8::is_ascii_digit).count();
        let both_cases =
            part.bytes().any(|b| b.is_ascii_lowercase()) && part.bytes().any(|b| b.is_ascii_uppercase());
        part.len() >= 16 && letters && (digits >= 2 || both_cases) && bits(part) > 3.0
    })
}

/// Shannon's entropy of the characters, in bits for each.
fn bits(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let length = text.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|p| -p * p.log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_lines_of_configuration_files_are_hidden() {
        for line in [
            "DB_PASSWORD=hunter2",
            "export API_KEY = hunter2",
            "  password: hunter2",
            "\"secret\": \"hunter2\",",
            "DATABASE_URL=postgres://app:hunter2@db:5432/shop?sslmode=require",
            "REDIS_URL=redis://:hunter2@cache",
            "CELERY=amqp://hunter2@mq",
            "proxy_set_header Authorization \"Bearer hunter2\";",
            "auth_basic_user_file hunter2;",
            "ssl_password_file hunter2;",
            "WEBHOOK=https://hooks.example.com/services/T024F/B0hunter2/9sXk2mPq7LrT5vWz8aBc",
            "stripe=sk_live_hunter2",
        ] {
            let shown = hide_line(line);
            let token = line.contains("sk_live") || line.contains("WEBHOOK");
            assert!(token || !shown.contains("hunter2"), "{line} is shown as {shown}");
        }
        assert!(
            !hide_line("WEBHOOK=https://h.example/9sXk2mPq7LrT5vWz8aBc").contains("9sXk2mPq7LrT5vWz8aBc")
        );
        assert!(
            !hide_line("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj").contains("MIIE"),
            "a line of a PEM file"
        );
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for line in [
            "APP_ENV=production",
            "LOG_LEVEL: debug",
            "worker_processes auto;",
            "listen 443 ssl http2;",
            "BASE=https://shop.example.com/a/long/path/to/some/resource/index.html",
            "# a remark about the application and its settings",
            "",
        ] {
            assert_eq!(hide_line(line), line);
        }
    }

    #[test]
    fn secrets_in_rows_are_hidden_by_the_names_of_columns_and_of_settings() {
        for row in [
            r#"{"smtp_password": "hunter2"}"#,
            r#"{"name": "smtp_password", "value": "hunter2"}"#,
            r#"{"key": "api_token", "value": {"v": "hunter2"}}"#,
            r#"{"nested": [{"client_secret": "hunter2"}]}"#,
            r#"{"url": "https://user:hunter2@host/"}"#,
            "hunter2 is no JSON",
        ] {
            assert!(!hide_row(row).contains("hunter2"), "{row} is shown as {}", hide_row(row));
        }
        let harmless = r#"{"key":"theme","value":"dark","version":3}"#;
        assert_eq!(hide_row(harmless), harmless);
    }
}
