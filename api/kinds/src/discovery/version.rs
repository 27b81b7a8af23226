//! `/version`: which Kubernetes this is like. kubectl compares its own number with it and warns past one minor version.

use serde_json::{Value, json};

/// The release whose API is served.
const MAJOR: &str = "1";
const MINOR: &str = "36";
const PATCH: &str = "2";

/// The document; `build` is this program's own version, `platform` as `linux/amd64`.
pub fn document(build: &str, platform: &str) -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": git_version(build),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}

/// `v1.36.2+reckon.0.1.0`: a semantic version, whose build part says who serves it.
pub fn git_version(build: &str) -> String {
    format!("v{MAJOR}.{MINOR}.{PATCH}+reckon.{build}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_fields_of_the_reference() {
        let document = document("0.1.0", "linux/amd64");
        assert_eq!(document["gitVersion"], "v1.36.2+reckon.0.1.0");
        let Some(reference) = crate::resources::recorded::reference("version.json") else {
            return;
        };
        let keys = |value: &Value| {
            value
                .as_object()
                .map(|map| map.keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(keys(&document), keys(&reference));
        for key in ["major", "minor", "minCompatibilityMinor", "platform"] {
            assert_eq!(document[key], reference[key], "{key}");
        }
    }
}
