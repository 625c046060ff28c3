//! Names: `vendor/class` of a specification, `vendor/class=device` of a device.

/// Takes a qualified name apart into kind and device.
pub(super) fn split(name: &str) -> Result<(&str, &str), &'static str> {
    let (kind, device) = name.split_once('=').ok_or("is not vendor/class=device")?;
    check_kind(kind)?;
    check_device(device)?;
    Ok((kind, device))
}

pub(super) fn check_kind(kind: &str) -> Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("is not vendor/class")?;
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
    if !begins(vendor) || !is_word(vendor, "-_.") {
        return Err("has no valid vendor: letters, digits, '-', '_' and '.'");
    }
    if !begins(class) || !is_word(class, "-_") {
        return Err("has no valid class: letters, digits, '-' and '_'");
    }
    Ok(())
}

pub(super) fn check_device(device: &str) -> Result<(), &'static str> {
    if is_word(device, "-_.:") {
        Ok(())
    } else {
        Err("has no valid device: letters, digits, '-', '_', '.' and ':'")
    }
}

/// Begins and ends with a letter or digit.
fn is_word(text: &str, between: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || between.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_are_taken_apart() {
        assert_eq!(split("nvidia.com/gpu=0"), Ok(("nvidia.com/gpu", "0")));
        assert_eq!(split("v-1.a/c_d=GPU-1:2.x"), Ok(("v-1.a/c_d", "GPU-1:2.x")));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in [
            "", "gpu", "=0", "v/c", "v/c=", "/c=0", "v/=0", "1v/c=0", "v/1c=0", "v/c=-a", "v/c=a-",
            "v./c=0", "v/c.d=0", "v/c=a/b", "v/c=a b", "v/c=a=b", "v/c=../x", "v/c/d=0",
        ] {
            assert!(split(name).is_err(), "{name}");
        }
    }
}
