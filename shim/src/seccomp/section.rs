//! A profile as the section `linux.seccomp` of an OCI runtime configuration.

use libseccomp::ScmpArch;
use serde_json::{Value, json};

use super::profile::{Context, Entry, File};

impl File {
    /// The profile with its conditions decided: the format of the section has none.
    pub(super) fn section(&self, context: Context) -> Result<Value, String> {
        // What the compiler refuses is wrong for every runtime.
        self.decide(context)?;
        let mut syscalls = Vec::new();
        for entry in &self.syscalls {
            if entry.applies(context)? {
                syscalls.push(rule(entry));
            }
        }
        let mut section = json!({
            "defaultAction": self.default_action,
            "architectures": self.names_of_architectures(),
            "syscalls": syscalls,
        });
        if let Some(number) = self.default_errno_ret {
            section["defaultErrnoRet"] = number.into();
        }
        Ok(section)
    }

    /// Those named, else the native one's family.
    fn names_of_architectures(&self) -> Vec<String> {
        if !self.architectures.is_empty() {
            return self.architectures.clone();
        }
        let native = ScmpArch::native();
        let family = self
            .arch_map
            .iter()
            .find(|family| family.architecture.parse().ok() == Some(native));
        if let Some(family) = family {
            let own = [family.architecture.clone()];
            return own
                .into_iter()
                .chain(family.sub_architectures.clone())
                .collect();
        }
        let names: &[&str] = match native {
            ScmpArch::X8664 => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            ScmpArch::Aarch64 => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
            ScmpArch::S390X => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
            // None named means the native one.
            _ => &[],
        };
        names.iter().map(ToString::to_string).collect()
    }
}

fn rule(entry: &Entry) -> Value {
    let mut rule = json!({"names": entry.names(), "action": entry.action});
    if let Some(number) = entry.errno_ret {
        rule["errnoRet"] = number.into();
    }
    let args: Vec<Value> = entry
        .args
        .iter()
        .map(|argument| {
            json!({
                "index": argument.index,
                "value": argument.value,
                "valueTwo": argument.value_two,
                "op": argument.op,
            })
        })
        .collect();
    if !args.is_empty() {
        rule["args"] = args.into();
    }
    rule
}

#[cfg(test)]
mod tests {
    use carpel_spec::capability::CapSet;

    use super::*;
    use crate::seccomp::{Compiler, Profile};

    fn section(text: &str) -> Result<Value, String> {
        let context = Context {
            capabilities: CapSet::default(),
            kernel: (6, 1),
        };
        File::parse(text.as_bytes())?.section(context)
    }

    #[test]
    fn conditions_are_decided_and_all_else_stays() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "write", "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [
                {"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
        let section = section(text).unwrap();
        assert_eq!(section["defaultErrnoRet"], 38);
        assert_eq!(
            section["syscalls"],
            json!([{"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [
                {"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}])
        );
    }

    #[test]
    fn what_the_compiler_refuses_is_refused() {
        assert!(section(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).is_err());
        assert!(section("{}").is_err());
    }

    #[test]
    fn the_default_is_a_section_that_the_types_take() {
        let compiler = Compiler::new();
        let section = compiler
            .section(&Profile::Default, CapSet::default())
            .unwrap();
        let typed: oci_spec::runtime::LinuxSeccomp = serde_json::from_value(section).unwrap();
        assert!(typed.syscalls().as_ref().unwrap().len() > 1);
        if ScmpArch::native() == ScmpArch::X8664 {
            assert_eq!(typed.architectures().as_ref().unwrap().len(), 3);
        }
    }
}
