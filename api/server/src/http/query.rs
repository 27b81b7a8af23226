//! The query of a request, decoded once: `?labelSelector=a%3Db&watch=1`.

use kinds::error::{FieldError, StatusError};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of that name; an empty one counts as given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of that name, or `""`.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// As Kubernetes reads booleans of a query: `0` and `false` are false, whatever else is there is true, absent is false.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false"))
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, StatusError> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                StatusError::bad_request(format!(
                    "strconv.ParseInt: parsing {}: invalid syntax",
                    kinds::error::go_quote(text)
                ))
            }),
        }
    }

    /// `dryRun=All`; anything else is refused as the options' `kind` (`CreateOptions`) refuses it.
    pub fn dry_run(&self, kind: &str) -> Result<bool, StatusError> {
        let mut dry = false;
        for value in self.all("dryRun") {
            match value {
                "" => {}
                "All" => dry = true,
                other => {
                    return Err(options_invalid(
                        kind,
                        &[FieldError::not_supported("dryRun", other, &["All"])],
                    ));
                }
            }
        }
        Ok(dry)
    }
}

/// 422 for what a request's options say.
pub(crate) fn options_invalid(kind: &str, errors: &[FieldError]) -> StatusError {
    StatusError::invalid("meta.k8s.io", kind, "", errors)
}

/// Percent-decoding. What is no valid escape, or no UTF-8, is kept as a client would see it.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' if plus_is_space => bytes.push(b' '),
            b'%' => match after
                .get(..2)
                .and_then(|hex| std::str::from_utf8(hex).ok())
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            {
                Some(decoded) => {
                    bytes.push(decoded);
                    rest = &after[2..];
                }
                None => bytes.push(byte),
            },
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_once() {
        let query =
            Query::parse("labelSelector=a%3Db%2Cc&x=1+2&watch=1&empty&off=False&limit=5&bad=%zz");
        let rows = [
            ("labelSelector", Some("a=b,c")),
            ("x", Some("1 2")),
            ("watch", Some("1")),
            ("empty", Some("")),
            ("none", None),
            ("bad", Some("%zz")),
        ];
        for (name, value) in rows {
            assert_eq!(query.get(name), value, "{name}");
        }
        let flags = [
            ("watch", true),
            ("off", false),
            ("empty", true),
            ("none", false),
        ];
        for (name, value) in flags {
            assert_eq!(query.flag(name), value, "{name}");
        }
        assert_eq!(query.integer("limit").ok(), Some(Some(5)));
        assert_eq!(query.integer("bad").map_err(|error| error.code), Err(400));
        for (text, expected) in [
            ("", Ok(false)),
            ("dryRun=All", Ok(true)),
            ("dryRun=Some", Err(422)),
        ] {
            assert_eq!(
                Query::parse(text)
                    .dry_run("CreateOptions")
                    .map_err(|error| error.code),
                expected,
                "{text}"
            );
        }
    }
}
