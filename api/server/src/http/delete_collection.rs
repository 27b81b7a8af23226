//! Deletecollection: each object that is selected is deleted by a proposal of its own, some at a time.

use super::call::{Call, Target};
use super::delete::{self, DeleteOptions};
use super::negotiate::Form;
use super::read;
use super::respond::{Reply, in_form, list_value};
use super::selection::Selection;
use crate::timetravel::Moment;
use eventstore::Intent;
use futures::{StreamExt, TryStreamExt};
use kinds::error::StatusError;
use kinds::table;
use serde_json::Value;

/// Deletions under way at once.
const AT_ONCE: usize = 32;

pub(crate) async fn serve(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let options = DeleteOptions::read(call)?;
    let selection = Selection::read(&call.query, target)?;
    let moment = Moment::now(read::view(call, None).await?);
    let objects = read::select(&moment, target, &selection)?;
    let deletions = objects.iter().map(|object| {
        let one = Target {
            kind: target.kind,
            namespace: target.namespace.clone(),
            name: object.key.name.to_string(),
        };
        let own = call.another();
        let options = options.clone();
        async move {
            match delete::delete(&own, &one, &options, &|| Intent::DeleteCollection).await {
                Ok(deleted) => Ok(Some(deleted.object.to_value())),
                // Somebody else was quicker: it is what was asked for.
                Err(error) if error.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        }
    });
    let deletions: Vec<_> = deletions.collect();
    let deleted: Vec<Option<Value>> = futures::stream::iter(deletions)
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let deleted: Vec<Value> = deleted.into_iter().flatten().collect();
    let metadata = read::list_metadata(call.core().view().revision);
    let list = match accept.form {
        Form::Whole => list_value(target.kind, metadata, deleted),
        Form::Table => table::table(
            target.kind,
            &deleted,
            metadata,
            include,
            true,
            call.now_ms(),
        ),
        Form::Partial => {
            let partial: Vec<Value> = deleted
                .iter()
                .map(|object| in_form(Form::Partial, target.kind, object, include, 0))
                .collect();
            table::partial_list(&partial, metadata)
        }
    };
    Ok(Reply::value(accept, 200, &list))
}
