//! Points in time, durations as people write them, and the clock as something that is handed in.
//!
//! Nothing outside [`SystemClock`] reads the machine's clock: retention, sessions and tests all take a [`Clock`], and no
//! safety argument rests on what it says.

use std::{fmt, str::FromStr};

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, so from 1677 to 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Time(#[n(0)] pub i64);

pub const SECOND: i64 = 1_000_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

impl Time {
    pub fn from_jiff(t: jiff::Timestamp) -> Time {
        Time(i64::try_from(t.as_nanosecond()).unwrap_or(if t.as_nanosecond() < 0 {
            i64::MIN
        } else {
            i64::MAX
        }))
    }

    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.0))
            .expect("every i64 of nanoseconds is within jiff's range")
    }

    /// Nanoseconds from `earlier` to here; negative if `earlier` is later.
    pub fn since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    pub fn plus(self, nanoseconds: i64) -> Time {
        Time(self.0.saturating_add(nanoseconds))
    }
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_jiff().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_jiff())
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.to_jiff())
    }
}

impl<'de> serde::Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse::<jiff::Timestamp>().map(Time::from_jiff).map_err(serde::de::Error::custom)
    }
}

/// A length of time as configuration writes it: `90s`, `15m`, `4h`, `90d`, `12w`, `1y` (365 days), or several: `1d12h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub nanoseconds: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time (write a number and a unit: 90s, 15m, 4h, 90d, 12w, 1y)")]
pub struct ParseSpanError(String);

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, ParseSpanError> {
        let wrong = || ParseSpanError(text.to_owned());
        let mut rest = text.trim();
        let mut total: i64 = 0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let unit = match &rest[..letters] {
                "s" | "sec" => SECOND,
                "m" | "min" => MINUTE,
                "h" => HOUR,
                "d" => DAY,
                "w" => 7 * DAY,
                "y" => 365 * DAY,
                _ => return Err(wrong()),
            };
            rest = rest[letters..].trim_start();
            total = number.checked_mul(unit).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        }
        Ok(Span { nanoseconds: total })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.nanoseconds / SECOND;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")] {
            let count = rest / (unit / SECOND);
            if count > 0 {
                write!(f, "{count}{name}")?;
                rest %= unit / SECOND;
            }
        }
        Ok(())
    }
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "description": "A length of time: 90s, 15m, 4h, 90d, 12w, 1y, 1d12h", "type": "string" })
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    fn now(&self) -> Time;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that may
    fn now(&self) -> Time {
        Time::from_jiff(jiff::Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown_as_people_write_them() {
        for (text, shown) in
            [("90s", "1m30s"), ("90d", "90d"), ("1d12h", "1d12h"), ("2w", "14d"), ("0s", "0s")]
        {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), shown);
        }
        for text in ["", "d", "90", "90 days of summer", "9999999999y"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
