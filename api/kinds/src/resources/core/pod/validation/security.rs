//! Who the processes are to the kernel, and what they may do.

use crate::resources::checks::{Findings, items, range, text};
use serde_json::Value;

const ID_MAX: i64 = i32::MAX as i64;
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

pub fn of_pod(spec: &Value, path: &str, found: &mut Findings) {
    let (context, at) = (&spec["securityContext"], format!("{path}.securityContext"));
    ids(context, &["runAsUser", "runAsGroup", "fsGroup"], &at, found);
    for (index, group) in items(&context["supplementalGroups"]).iter().enumerate() {
        id(group, format!("{at}.supplementalGroups[{index}]"), found);
    }
    profiles(context, &at, found);
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        found.invalid(
            format!("{at}.shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    if let Some(policy) = context["fsGroupChangePolicy"].as_str()
        && !matches!(policy, "Always" | "OnRootMismatch")
    {
        found.not_supported(
            format!("{at}.fsGroupChangePolicy"),
            policy,
            &["Always", "OnRootMismatch"],
        );
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, sysctl) in items(&context["sysctls"]).iter().enumerate() {
        let (name_path, name) = (format!("{at}.sysctls[{index}].name"), text(&sysctl["name"]));
        if name.is_empty() {
            found.required(name_path, "");
        } else if seen.contains(&name) {
            found.duplicate(name_path, name);
        }
        seen.push(name);
    }
}

pub fn of_container(context: &Value, path: &str, found: &mut Findings) {
    if context.is_null() {
        return;
    }
    ids(context, &["runAsUser", "runAsGroup"], path, found);
    profiles(context, path, found);
    if let Some(mount) = context["procMount"].as_str()
        && !matches!(mount, "Default" | "Unmasked")
    {
        found.not_supported(format!("{path}.procMount"), mount, &["Default", "Unmasked"]);
    }
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            found.invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if items(&context["capabilities"]["add"])
            .iter()
            .any(|capability| capability == "CAP_SYS_ADMIN")
        {
            found.invalid(path, context.clone(), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

fn ids(context: &Value, keys: &[&str], path: &str, found: &mut Findings) {
    for key in keys {
        id(&context[*key], format!("{path}.{key}"), found);
    }
}

fn id(value: &Value, path: String, found: &mut Findings) {
    if value.as_i64().is_some_and(|id| !(0..=ID_MAX).contains(&id)) {
        found.invalid(path, value.clone(), range(0, ID_MAX));
    }
}

/// A profile of the node's own must be named, and no other may be.
fn profiles(context: &Value, path: &str, found: &mut Findings) {
    for key in ["seccompProfile", "appArmorProfile"] {
        let (profile, at) = (&context[key], format!("{path}.{key}"));
        if profile.is_null() {
            continue;
        }
        let local = text(&profile["localhostProfile"]);
        match text(&profile["type"]) {
            "Localhost" if local.is_empty() && key == "seccompProfile" => {
                found.required(
                    format!("{at}.localhostProfile"),
                    "must be set when seccomp type is Localhost",
                );
            }
            "Localhost" if local.is_empty() => {
                found.required(
                    format!("{at}.localhostProfile"),
                    "must be set when AppArmor type is Localhost",
                );
            }
            "Localhost" => {}
            "" => found.required(
                format!("{at}.type"),
                if key == "appArmorProfile" {
                    "type is required when appArmorProfile is set"
                } else {
                    "type is required when seccompProfile is set"
                },
            ),
            kind if PROFILES.contains(&kind) => {
                if !local.is_empty() {
                    let what = if key == "seccompProfile" {
                        "seccomp"
                    } else {
                        "AppArmor"
                    };
                    found.invalid(
                        format!("{at}.localhostProfile"),
                        local,
                        format!("can only be set when {what} type is Localhost"),
                    );
                }
            }
            kind => found.not_supported(format!("{at}.type"), kind, PROFILES),
        }
    }
}
