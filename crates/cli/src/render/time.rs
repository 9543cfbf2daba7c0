//! Times in the reader's zone, and lengths of time in words.

use jiff::tz::TimeZone;
use mainstay_domain::{
    Time,
    time::{DAY, HOUR, MINUTE, SECOND},
};

/// `2026-11-20 14:02:31 +01:00`, in the zone of the machine (or of `TZ`).
pub fn local(time: Time) -> String {
    time.to_jiff().to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `2026-11-20 14:02:30.881204 +01:00`: which of two neighbours is meant.
pub fn precise(time: Time) -> String {
    time.to_jiff().to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.6f %:z").to_string()
}

/// `20261120_140231`, for names.
pub fn compact(time: Time) -> String {
    time.to_jiff().strftime("%Y%m%d_%H%M%S").to_string()
}

/// `2026-11-20 14:02`, for tables.
pub fn local_short(time: Time) -> String {
    time.to_jiff().to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// `340 ms`, `12.3 s`, `4 min 05 s`, `2 h 13 min`, `3 days`: what a person needs of it.
pub fn length(nanoseconds: i64) -> String {
    let seconds = nanoseconds / SECOND;
    match nanoseconds {
        n if n < SECOND => format!("{} ms", n.max(0) / 1_000_000),
        n if n < MINUTE => format!("{:.1} s", n as f64 / SECOND as f64),
        n if n < HOUR => format!("{} min {:02} s", seconds / 60, seconds % 60),
        n if n < 2 * DAY => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        n => format!("{} days", n / DAY),
    }
}

/// `3 h 02 min ago`, or `in 5 days`.
pub fn relative(time: Time, now: Time) -> String {
    match now.since(time) {
        past if past >= 0 => format!("{} ago", length(past)),
        ahead => format!("in {}", length(-ahead)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_shown_with_the_digits_that_matter() {
        for (nanoseconds, text) in [
            (340_000_000, "340 ms"),
            (12_340_000_000, "12.3 s"),
            (245 * SECOND, "4 min 05 s"),
            (2 * HOUR + 13 * MINUTE, "2 h 13 min"),
            (3 * DAY + HOUR, "3 days"),
            (-1, "0 ms"),
        ] {
            assert_eq!(length(nanoseconds), text);
        }
        assert_eq!(relative(Time(0), Time(90 * SECOND)), "1 min 30 s ago");
        assert_eq!(relative(Time(5 * DAY), Time(0)), "in 5 days");
    }
}
