//! Which form an answer takes (`Accept`) and a body has (`Content-Type`).
//!
//! JSON and YAML are spoken. Protobuf is understood and not spoken: clients that send it name JSON next in `Accept`, and get that.
//! The lists in the error texts name all three, for clients compare these texts.

use kinds::discovery::Aggregated;
use kinds::error::StatusError;
use kinds::patch::PatchType;

const SPOKEN: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// What an object becomes on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Table,
    /// PartialObjectMetadata, or a list of these.
    Partial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    pub encoding: Encoding,
    pub form: Form,
}

impl Encoding {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

impl Accept {
    pub const JSON: Self = Self {
        encoding: Encoding::Json,
        form: Form::Whole,
    };

    /// The first of the client's choices that is served.
    pub fn read(header: &str) -> Result<Self, StatusError> {
        let mut wrong_form = false;
        for clause in clauses(header) {
            let Some(encoding) = clause.encoding() else {
                continue;
            };
            match clause.form() {
                Some(form) => return Ok(Self { encoding, form }),
                None => wrong_form = true,
            }
        }
        if header.trim().is_empty() {
            return Ok(Self::JSON);
        }
        Err(if wrong_form {
            StatusError::not_acceptable_transformation(SPOKEN)
        } else {
            StatusError::not_acceptable(SPOKEN)
        })
    }

    /// The aggregated discovery document asked for, if one is and before any other form.
    pub fn aggregated(header: &str) -> Option<Aggregated> {
        for clause in clauses(header) {
            if clause.encoding() != Some(Encoding::Json) {
                continue;
            }
            match (
                clause.parameter("as"),
                clause.parameter("g"),
                clause.parameter("v"),
            ) {
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                    return Some(Aggregated::V2);
                }
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                    return Some(Aggregated::V2Beta1);
                }
                (None, ..) => return None,
                _ => {}
            }
        }
        None
    }
}

/// Whether a body is in protobuf, as newer clients send built-in kinds.
pub(crate) fn is_protobuf(content_type: &str) -> bool {
    media_type(content_type) == "application/vnd.kubernetes.protobuf"
}

/// How a body is encoded, for what is no patch. An absent header means JSON.
pub(crate) fn body_encoding(content_type: &str) -> Result<Encoding, StatusError> {
    match media_type(content_type).as_str() {
        "" | "application/json" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        _ => Err(StatusError::unsupported_media_type(SPOKEN)),
    }
}

/// How a PATCH's body is meant.
pub(crate) fn patch_type(content_type: &str) -> Result<PatchType, StatusError> {
    PatchType::of(content_type).ok_or_else(|| {
        StatusError::new(
            415,
            "UnsupportedMediaType",
            "415: Unsupported Media Type",
            serde_json::json!({}),
        )
    })
}

fn media_type(header: &str) -> String {
    header
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

struct Clause<'a> {
    media_type: String,
    parameters: Vec<(&'a str, &'a str)>,
}

fn clauses(header: &str) -> impl Iterator<Item = Clause<'_>> {
    header
        .split(',')
        .filter(|clause| !clause.trim().is_empty())
        .map(|clause| {
            let parameters = clause
                .split(';')
                .skip(1)
                .filter_map(|parameter| parameter.trim().split_once('='));
            Clause {
                media_type: media_type(clause),
                parameters: parameters
                    .map(|(name, value)| (name.trim(), value.trim()))
                    .collect(),
            }
        })
}

impl Clause<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| *value)
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type.as_str() {
            "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }

    fn form(&self) -> Option<Form> {
        let meta = self.parameter("g") == Some("meta.k8s.io")
            && matches!(self.parameter("v"), Some("v1" | "v1beta1"));
        match self.parameter("as") {
            None => Some(Form::Whole),
            Some("Table") if meta => Some(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => {
                Some(Form::Partial)
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_choice_that_is_served_wins() {
        let json = Ok(Accept::JSON);
        let form = |form| {
            Ok(Accept {
                encoding: Encoding::Json,
                form,
            })
        };
        let rows = [
            ("", json),
            ("*/*", json),
            ("application/json", json),
            ("application/vnd.kubernetes.protobuf,application/json", json),
            ("application/json;stream=watch", json),
            (
                "application/yaml",
                Ok(Accept {
                    encoding: Encoding::Yaml,
                    form: Form::Whole,
                }),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                form(Form::Table),
            ),
            (
                "application/json;as=Table;v=v1;g=example.com,application/json",
                json,
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                form(Form::Partial),
            ),
            ("text/html, */*;q=0.8", json),
            (
                "text/csv",
                Err(
                    "NotAcceptable: 406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
                ),
            ),
            (
                "application/vnd.kubernetes.protobuf",
                Err(
                    "NotAcceptable: 406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
                ),
            ),
            (
                "application/json;as=Chart;g=meta.k8s.io;v=v1",
                Err(
                    "NotAcceptable: only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
                ),
            ),
        ];
        for (header, expected) in rows {
            let read = Accept::read(header)
                .map_err(|error| format!("{}: {}", error.reason, error.message));
            assert_eq!(read, expected.map_err(str::to_owned), "{header}");
        }
    }

    #[test]
    fn discovery_is_aggregated_for_those_who_ask_first() {
        let rows = [
            ("application/json", None),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Some(Aggregated::V2),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
                Some(Aggregated::V2Beta1),
            ),
            (
                "application/json,application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                None,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json",
                None,
            ),
        ];
        for (header, expected) in rows {
            assert_eq!(Accept::aggregated(header), expected, "{header}");
        }
    }

    #[test]
    fn bodies_and_patches_name_their_type() {
        let rows = [
            ("", Ok(Encoding::Json)),
            ("application/json; charset=utf-8", Ok(Encoding::Json)),
            ("application/yaml", Ok(Encoding::Yaml)),
            ("text/plain", Err(415)),
        ];
        for (header, expected) in rows {
            assert_eq!(
                body_encoding(header).map_err(|error| error.code),
                expected,
                "{header}"
            );
        }
        let rows = [
            ("application/json-patch+json", Ok(PatchType::Json)),
            (
                "application/merge-patch+json; charset=utf-8",
                Ok(PatchType::Merge),
            ),
            (
                "application/strategic-merge-patch+json",
                Ok(PatchType::Strategic),
            ),
            ("application/apply-patch+yaml", Ok(PatchType::Apply)),
            ("application/json", Err(415)),
        ];
        for (header, expected) in rows {
            assert_eq!(
                patch_type(header).map_err(|error| error.code),
                expected,
                "{header}"
            );
        }
    }
}
