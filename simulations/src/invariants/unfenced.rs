//! Where nothing was planted no server finds that its history is another than the others', nor that any differs.

use super::Violation;
use server::core::Core;

pub fn check(core: &Core) -> Result<(), Violation> {
    let fenced = core.fenced().map(|why| why.to_string());
    match fenced.or_else(|| core.diverges()) {
        None => Ok(()),
        Some(why) => Err(Violation::new("nobody is fenced", why)),
    }
}
