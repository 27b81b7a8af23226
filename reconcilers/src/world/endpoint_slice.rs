//! What decisions read of an EndpointSlice.

use super::thing::Read;
use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    pub address_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSliceJson {
    #[serde(default)]
    address_type: String,
}

impl Read for EndpointSlice {
    type Json = EndpointSliceJson;

    fn of(json: EndpointSliceJson) -> Self {
        Self {
            address_type: json.address_type,
        }
    }
}
