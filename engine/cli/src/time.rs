//! Times: text as people and other systems write it, microseconds since 1970 as the store keeps it.
//!
//! Each number has one canonical text: RFC 3339 in UTC, with `T`, `Z`, and as many digits of the second as it needs.
//! Numbers beyond the years 0000 to 9999, which RFC 3339 can't write, are `@…us`.

use jiff::SignedDuration;
use jiff::civil::DateTime;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The canonical text of a time.
pub(crate) fn text_of(micros: i64) -> String {
    match EPOCH.checked_add(SignedDuration::from_micros(micros)) {
        Ok(time) if time.year() >= 0 => format!("{time}Z"),
        _ => format!("@{micros}us"),
    }
}

/// The time that a text means: RFC 3339 with any offset and any number of digits, also with a space for the `T`.
/// Digits beyond the microsecond don't count.
pub(crate) fn micros_of(text: &str) -> Option<i64> {
    rfc3339(text.as_bytes()).or_else(|| beyond_rfc3339(text))
}

fn beyond_rfc3339(text: &str) -> Option<i64> {
    let micros = text.strip_prefix('@')?.strip_suffix("us")?.parse().ok()?;
    (text_of(micros) == text).then_some(micros)
}

fn rfc3339(text: &[u8]) -> Option<i64> {
    let (date_and_time, rest) = text.split_at_checked(19)?;
    let (year, month, day) = (&date_and_time[0..4], &date_and_time[5..7], &date_and_time[8..10]);
    let (hour, minute, second) =
        (&date_and_time[11..13], &date_and_time[14..16], &date_and_time[17..19]);
    let separators = [4, 7, 10, 13, 16].map(|at| date_and_time[at]);
    if !matches!(separators, [b'-', b'-', b'T' | b't' | b' ', b':', b':']) {
        return None;
    }
    let digits = match rest {
        [b'.', fraction @ ..] => fraction.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    };
    let (fraction, offset) = match rest {
        [b'.', ..] if digits == 0 => return None,
        [b'.', fraction @ ..] => fraction.split_at(digits),
        _ => (&[][..], rest),
    };
    let offset_seconds = match offset {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let small = |digits| number(digits).and_then(|number| i8::try_from(number).ok());
    // A leap second has no number of its own.
    let second = match small(second)? {
        60 => 59,
        second => second,
    };
    let time = DateTime::new(
        i16::try_from(number(year)?).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        second,
        0,
    )
    .ok()?;
    let seconds = time.duration_since(EPOCH).as_secs() - offset_seconds;
    let micros = (0..6).fold(0, |sum, place| {
        sum * 10 + fraction.get(place).map_or(0, |digit| i64::from(digit - b'0'))
    });
    Some(seconds * 1_000_000 + micros)
}

fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |sum, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_in_all_its_spellings() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01 00:00:00z", 0),
            ("1969-12-31t23:59:59.999999Z", -1),
            ("2019-05-20 07:07:47.000Z", 1_558_336_067_000_000),
            ("2010-10-02 09:20:39.266000+02:00", 1_286_004_039_266_000),
            ("2010-10-02T07:20:39.2660009Z", 1_286_004_039_266_000),
            ("2010-10-02T02:50:39.266-04:30", 1_286_004_039_266_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
            ("9999-12-31T23:59:59-23:59", 253_402_387_139_000_000),
        ] {
            assert_eq!(micros_of(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn what_is_no_rfc_3339_time() {
        for text in [
            "",
            "yesterday",
            "2019-05-20",
            "2019-05-20T07:07Z",
            "2019-05-20T07:07:47",
            "2019-05-20T07:07:47.Z",
            "2019-05-20T07:07:47.5",
            "2019-05-20T07:07:47,5Z",
            "2019-05-20T07:07:47+0200",
            "2019-05-20T07:07:47+24:00",
            "2019-05-20T07:07:47+02:60",
            "2019-02-29T07:07:47Z",
            "2019-13-01T07:07:47Z",
            "2019-05-20T24:00:00Z",
            "2019-05-20T07:07:61Z",
            "2019-05-20T07:07:47Z ",
            "2019-05-20_07:07:47Z",
            "2o19-05-20T07:07:47Z",
            "２019-05-20T07:07:47Z",
            "@0us",
            "@x",
        ] {
            assert_eq!(micros_of(text), None, "{text}");
        }
    }

    #[test]
    fn every_number_has_a_text_that_means_it() {
        for micros in [
            0,
            -1,
            1,
            1_558_336_067_000_000,
            1_558_336_067_120_000,
            -62_167_219_200_000_000,
            -62_167_219_200_000_001,
            253_402_300_799_999_999,
            253_402_300_800_000_000,
            i64::MIN,
            i64::MAX,
        ] {
            assert_eq!(micros_of(&text_of(micros)), Some(micros), "{}", text_of(micros));
        }
        assert_eq!(text_of(1_558_336_067_120_000), "2019-05-20T07:07:47.12Z");
        assert_eq!(text_of(i64::MIN), "@-9223372036854775808us");
    }
}
