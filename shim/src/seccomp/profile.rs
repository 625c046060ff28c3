//! The file format of profiles: the one of the OCI runtime configuration, with the
//! conditions that Docker added to it.

use carpel_spec::capability::CapSet;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp};
use serde::{Deserialize, Deserializer};

const EPERM: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct File {
    pub(super) default_action: String,
    pub(super) default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) architectures: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) arch_map: Vec<Family>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) syscalls: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Family {
    pub(super) architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) sub_architectures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    /// Older profiles have one name an entry.
    name: Option<String>,
    pub(super) action: String,
    pub(super) errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) args: Vec<Argument>,
    #[serde(default, deserialize_with = "nullable")]
    includes: Condition,
    #[serde(default, deserialize_with = "nullable")]
    excludes: Condition,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Argument {
    pub(super) index: u32,
    pub(super) value: u64,
    #[serde(default)]
    pub(super) value_two: u64,
    pub(super) op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default, deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Go writes an empty list as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What a profile's conditions are asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) capabilities: CapSet,
    pub(super) kernel: (u32, u32),
}

/// A profile with its conditions decided.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) default: ScmpAction,
    /// Beside the native one.
    pub(super) architectures: Vec<ScmpArch>,
    pub(super) list: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: ScmpAction,
    /// Alternatives, each a list of comparisons that must all hold; none at all
    /// means that the arguments do not matter.
    pub(super) alternatives: Vec<Vec<ScmpArgCompare>>,
}

impl File {
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text).map_err(|error| format!("is not a profile: {error}"))
    }

    pub(super) fn decide(&self, context: Context) -> Result<Rules, String> {
        let default = action(
            &self.default_action,
            self.default_errno_ret.unwrap_or(EPERM),
        )?;
        let mut list = Vec::new();
        for entry in &self.syscalls {
            if entry.applies(context)? {
                list.push(entry.rule()?);
            }
        }
        Ok(Rules {
            default,
            architectures: self.architectures()?,
            list,
        })
    }

    /// Those named, else those of the native one's family.
    fn architectures(&self) -> Result<Vec<ScmpArch>, String> {
        let parse = |name: &String| {
            name.parse()
                .map_err(|_| format!("architecture {name:?} is not known"))
        };
        if !self.architectures.is_empty() {
            return self.architectures.iter().map(parse).collect();
        }
        for family in &self.arch_map {
            if parse(&family.architecture) == Ok(ScmpArch::native()) {
                return family.sub_architectures.iter().map(parse).collect();
            }
        }
        Ok(match ScmpArch::native() {
            ScmpArch::X8664 => vec![ScmpArch::X86, ScmpArch::X32],
            ScmpArch::Aarch64 => vec![ScmpArch::Arm],
            ScmpArch::S390X => vec![ScmpArch::S390],
            _ => Vec::new(),
        })
    }
}

impl Entry {
    pub(super) fn applies(&self, context: Context) -> Result<bool, String> {
        Ok(self.includes.all_hold(context)? && !self.excludes.any_holds(context)?)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.iter().chain(&self.name).cloned().collect()
    }

    fn rule(&self) -> Result<Rule, String> {
        let names = self.names();
        let shown = names.join(", ");
        let action = action(&self.action, self.errno_ret.unwrap_or(EPERM))
            .map_err(|why| format!("{shown}: {why}"))?;
        let mut comparisons = Vec::new();
        for argument in &self.args {
            comparisons.push(
                argument
                    .compare()
                    .map_err(|why| format!("{shown}: {why}"))?,
            );
        }
        let repeated = self.args.iter().enumerate().any(|(at, argument)| {
            self.args[..at]
                .iter()
                .any(|earlier| earlier.index == argument.index)
        });
        // The library takes one comparison an argument. By custom more of them mean "or".
        let alternatives = match (comparisons.is_empty(), repeated) {
            (true, _) => Vec::new(),
            (false, false) => vec![comparisons],
            (false, true) => comparisons.into_iter().map(|one| vec![one]).collect(),
        };
        Ok(Rule {
            names,
            action,
            alternatives,
        })
    }
}

impl Argument {
    fn compare(&self) -> Result<ScmpArgCompare, String> {
        if self.index > 5 {
            return Err(format!("there is no argument {}", self.index));
        }
        let (op, datum) = match self.op.as_str() {
            "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, self.value),
            "SCMP_CMP_LT" => (ScmpCompareOp::Less, self.value),
            "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, self.value),
            "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, self.value),
            "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, self.value),
            "SCMP_CMP_GT" => (ScmpCompareOp::Greater, self.value),
            "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(self.value), self.value_two),
            other => return Err(format!("operator {other:?} is not known")),
        };
        Ok(ScmpArgCompare::new(self.index, op, datum))
    }
}

impl Condition {
    fn all_hold(&self, context: Context) -> Result<bool, String> {
        let arches = self.arches.is_empty() || self.names_native();
        let caps = self
            .caps
            .iter()
            .all(|name| context.capabilities.contains(name));
        Ok(arches
            && caps
            && self
                .min_kernel
                .as_deref()
                .map_or(Ok(true), |v| since(v, context))?)
    }

    fn any_holds(&self, context: Context) -> Result<bool, String> {
        let caps = self
            .caps
            .iter()
            .any(|name| context.capabilities.contains(name));
        let kernel = self
            .min_kernel
            .as_deref()
            .map_or(Ok(false), |v| since(v, context))?;
        Ok(caps || kernel || self.names_native())
    }

    /// Architectures stand here by their names in Go.
    fn names_native(&self) -> bool {
        let native = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        self.arches.iter().any(|name| name == native)
    }
}

fn since(version: &str, context: Context) -> Result<bool, String> {
    let wanted = parse_kernel(version).ok_or(format!("{version:?} is not a kernel version"))?;
    Ok(context.kernel >= wanted)
}

/// `6.18` of `6.18.44-something`.
pub(super) fn parse_kernel(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn action(name: &str, value: u32) -> Result<ScmpAction, String> {
    let small = |limit: u32| match u16::try_from(value) {
        Ok(value) if u32::from(value) <= limit => Ok(value),
        _ => Err(format!("{value} cannot be returned")),
    };
    match name {
        "SCMP_ACT_ALLOW" => Ok(ScmpAction::Allow),
        "SCMP_ACT_ERRNO" => Ok(ScmpAction::Errno(i32::from(small(4095)?))),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(ScmpAction::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(ScmpAction::KillProcess),
        "SCMP_ACT_LOG" => Ok(ScmpAction::Log),
        "SCMP_ACT_TRACE" => Ok(ScmpAction::Trace(small(u16::MAX.into())?)),
        "SCMP_ACT_TRAP" => Ok(ScmpAction::Trap),
        "SCMP_ACT_NOTIFY" => Err("action \"SCMP_ACT_NOTIFY\" needs an agent".to_owned()),
        other => Err(format!("action {other:?} is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(text: &str) -> Result<Rules, String> {
        let context = Context {
            capabilities: CapSet::default(),
            kernel: (6, 1),
        };
        File::parse(text.as_bytes())?.decide(context)
    }

    #[test]
    fn a_bare_profile_gets_the_native_family() {
        let rules = decide(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        assert_eq!(rules.default, ScmpAction::Allow);
        if ScmpArch::native() == ScmpArch::X8664 {
            assert_eq!(rules.architectures, [ScmpArch::X86, ScmpArch::X32]);
        }
    }

    #[test]
    fn errors_returned_are_the_profiles() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": null},
            {"name": "write", "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]}"#;
        let rules = decide(text).unwrap();
        assert_eq!(rules.default, ScmpAction::Errno(38));
        let actions: Vec<_> = rules.list.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [ScmpAction::Errno(1), ScmpAction::Errno(5)]);
        assert_eq!(rules.list[1].names, ["write"]);
    }

    #[test]
    fn one_argument_compared_twice_means_or() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["socket"],
            "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]}"#;
        let alternatives = &decide(text).unwrap().list[0].alternatives;
        assert_eq!(
            alternatives.iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 1]
        );
    }

    #[test]
    fn conditions_choose_the_rules() {
        let entry = |condition: &str| {
            let text = format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                [{{"names": ["read"], "action": "SCMP_ACT_LOG", {condition}}}]}}"#
            );
            decide(&text).unwrap().list.len()
        };
        assert_eq!(entry(r#""includes": {"minKernel": "4.8"}"#), 1);
        assert_eq!(entry(r#""includes": {"minKernel": "6.18"}"#), 0);
        assert_eq!(entry(r#""includes": {"caps": ["CAP_SYS_ADMIN"]}"#), 0);
        assert_eq!(entry(r#""excludes": {"caps": ["CAP_SYS_ADMIN"]}"#), 1);
        assert_eq!(
            entry(r#""includes": {"arches": ["nowhere"]}, "excludes": null"#),
            0
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("{", "is not a profile"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction": "NO"}"#, "action \"NO\" is not known"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "needs an agent"),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 9999}"#,
                "9999",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["PDP11"]}"#,
                "PDP11",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
                "read: there is no argument 6",
            ),
        ];
        for (text, wanted) in cases {
            let why = decide(text).unwrap_err();
            assert!(why.contains(wanted), "{why}");
        }
    }

    #[test]
    fn kernel_versions() {
        assert_eq!(parse_kernel("6.18.44-fc-v595\n"), Some((6, 18)));
        assert_eq!(parse_kernel("5.10"), Some((5, 10)));
        assert_eq!(parse_kernel("six"), None);
    }
}
