//! When a policy is due: a cron expression that was checked when the configuration was read.

use jiff::tz::TimeZone;
use mainstay_domain::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Cow, fmt, str::FromStr};

/// A cron expression of five fields, with `MON#1` and `L`, or a word such as `@daily`.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: croner::Cron,
}

impl Schedule {
    /// The first instant after `after` at which it is due, in the given zone; `None` if there is none.
    pub fn next(&self, after: Time, zone: &TimeZone) -> Option<Time> {
        let next = self.cron.find_next_occurrence(&after.to_jiff().to_zoned(zone.clone()), false).ok()?;
        Some(Time::from_jiff(next.timestamp()))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.split_whitespace().count() != 5 && !text.starts_with('@') {
            return Err(format!(
                "{text:?} is not a schedule (write five fields: minute, hour, day of month, month, day of week)"
            ));
        }
        match text.parse() {
            Ok(cron) => Ok(Schedule { text: text.to_owned(), cron }),
            // Its words are of a parser; the fields' are known to whoever writes one.
            Err(_) => Err(format!(
                "{text:?} is not a schedule (minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-7; \
                 *, lists, ranges, steps and names such as MON)"
            )),
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?})", self.text)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Schedule {
    fn schema_name() -> Cow<'static, str> {
        "Schedule".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "A cron expression: minute, hour, day of month, month, day of week",
            "type": "string"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let after = Time::from_jiff(after.parse().unwrap());
        let zone = TimeZone::get(zone).unwrap();
        schedule.parse::<Schedule>().unwrap().next(after, &zone).unwrap().to_string()
    }

    #[test]
    fn a_schedule_is_read_in_its_own_time_zone() {
        assert_eq!(next("0 3 * * *", "2026-07-01T00:00:00Z", "UTC"), "2026-07-01T03:00:00Z");
        assert_eq!(next("0 3 * * *", "2026-07-01T00:00:00Z", "Europe/Berlin"), "2026-07-01T01:00:00Z");
        assert_eq!(next("0 3 * * MON#1", "2026-07-01T00:00:00Z", "UTC"), "2026-07-06T03:00:00Z");
        assert_eq!(next("@hourly", "2026-07-01T00:00:00Z", "UTC"), "2026-07-01T01:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "daily", "0 3 * *", "61 3 * * *", "0 0 3 * * *", "@often"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
