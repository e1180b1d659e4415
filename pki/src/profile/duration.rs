//! Lengths of time and rates as profiles write them: `24h`, `5m`, `20/min`.

/// A whole number and `s`, `m`, `h` or `d`; in seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    number(text.get(..text.len() - 1)?)?.checked_mul(unit)
}

/// `20/min`: how many in how many seconds; `s`, `min`, `h` or `d`.
pub(super) fn rate(text: &str) -> Option<(u32, u32)> {
    let (count, unit) = text.split_once('/')?;
    let seconds = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let count = u32::try_from(number(count)?).ok()?;
    Some((count, seconds))
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|&n: &u64| plain && n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_with_a_unit() {
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("7d"), Some(604_800));
        for bad in [
            "",
            "h",
            "24",
            "0s",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1é",
            "99999999999999999999d",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(rate("20/min"), Some((20, 60)));
        assert_eq!(rate("20/m"), None);
    }
}
