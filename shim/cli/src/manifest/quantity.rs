//! Kubernetes quantities: `500m`, `64Mi`, `1.5`, `2e3`.

/// A quantity in thousandths, rounded up, as Kubernetes rounds.
pub(crate) fn milli(text: &str) -> Result<i64, String> {
    parse(text).ok_or_else(|| format!("{text:?} is not a quantity such as 500m, 2 or 64Mi"))
}

/// A quantity in whole units, rounded up.
pub(crate) fn whole(text: &str) -> Result<i64, String> {
    milli(text).map(|milli| milli.div_euclid(1000) + i64::from(milli.rem_euclid(1000) != 0))
}

fn parse(text: &str) -> Option<i64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    // In thousandths of the unit that the number was written in.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: i128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let (up, down) = factor(suffix)?;
    let value = whole
        .checked_mul(scale)?
        .checked_add(fraction)?
        .checked_mul(up)?;
    let divisor = scale.checked_mul(down)?;
    let milli = value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0);
    i64::try_from(milli).ok()
}

/// What the suffix multiplies thousandths by, and divides them by.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let power = |base: i128, exponent: u32| Some((1000 * base.pow(exponent), 1));
    match suffix {
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1000)),
        "m" => Some((1, 1)),
        "" => power(1, 0),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        exponent => {
            let exponent = exponent.strip_prefix(['e', 'E'])?;
            match exponent.strip_prefix('-') {
                Some(down) => Some((1000, 10_i128.checked_pow(small(down)?)?)),
                None => power(10, small(exponent.strip_prefix('+').unwrap_or(exponent))?),
            }
        }
    }
}

fn small(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|exponent| *exponent <= 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        assert_eq!(milli("500m"), Ok(500));
        assert_eq!(milli("0.1"), Ok(100));
        assert_eq!(milli("2"), Ok(2000));
        assert_eq!(milli("1n"), Ok(1));
        assert_eq!(whole("64Mi"), Ok(64 << 20));
        assert_eq!(whole("1.5Gi"), Ok(3 << 29));
        assert_eq!(whole("128e6"), Ok(128_000_000));
        assert_eq!(whole("1E3"), Ok(1000));
        assert_eq!(whole("100M"), Ok(100_000_000));
        assert_eq!(whole("1500m"), Ok(2));
    }

    #[test]
    fn what_is_no_quantity() {
        for text in [
            "",
            ".",
            "x",
            "-1",
            "64mb",
            "64 Mi",
            "1.2.3",
            "1e99",
            "9999999999Ei",
            "1Kii",
        ] {
            assert!(milli(text).is_err(), "{text:?}");
        }
    }
}
