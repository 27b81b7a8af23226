//! What files a configMap, secret, downwardAPI or projected volume holds: a pure function of the pod and the objects.

use super::VolumeError;
use super::atomic::Files;
use crate::env::{Downward, field_value, resource_value};
use crate::objects::{Missing, Objects, Source};
use crate::pod::{DownwardItem, Item, Volume};

/// Kubernetes' default for all four.
const DEFAULT_MODE: u32 = 0o644;

/// `None`: the volume is none of these.
pub(super) fn files(
    volume: &Volume,
    objects: &Objects,
    downward: &Downward<'_>,
) -> Result<Option<Files>, VolumeError> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let wanted = Wanted {
            source: Source::ConfigMap,
            name: &source.name,
            items: &source.items,
            optional: source.optional,
        };
        wanted.add(mode(source.default_mode), objects, downward, &mut files)?;
    } else if let Some(source) = &volume.secret {
        let wanted = Wanted {
            source: Source::Secret,
            name: &source.secret_name,
            items: &source.items,
            optional: source.optional,
        };
        wanted.add(mode(source.default_mode), objects, downward, &mut files)?;
    } else if let Some(source) = &volume.downward_api {
        add_downward(
            &source.items,
            mode(source.default_mode),
            downward,
            &mut files,
        )?;
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        for part in &projected.sources {
            if let Some(source) = &part.config_map {
                let wanted = Wanted {
                    source: Source::ConfigMap,
                    name: &source.name,
                    items: &source.items,
                    optional: source.optional,
                };
                wanted.add(mode, objects, downward, &mut files)?;
            }
            if let Some(source) = &part.secret {
                let wanted = Wanted {
                    source: Source::Secret,
                    name: &source.secret_name,
                    items: &source.items,
                    optional: source.optional,
                };
                wanted.add(mode, objects, downward, &mut files)?;
            }
            if let Some(source) = &part.downward_api {
                add_downward(&source.items, mode, downward, &mut files)?;
            }
            // A serviceAccountToken is skipped: nothing issues tokens yet.
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files))
}

fn mode(default: Option<u32>) -> u32 {
    default.unwrap_or(DEFAULT_MODE)
}

struct Wanted<'a> {
    source: Source,
    name: &'a str,
    /// Empty: every key, under its own name.
    items: &'a [Item],
    optional: bool,
}

impl Wanted<'_> {
    fn add(
        &self,
        mode: u32,
        objects: &Objects,
        downward: &Downward<'_>,
        files: &mut Files,
    ) -> Result<(), VolumeError> {
        let namespace = &downward.pod.metadata.namespace;
        let Some(data) = objects.get_optional(self.source, namespace, self.name, self.optional)?
        else {
            return Ok(());
        };
        if self.items.is_empty() {
            files.extend(
                data.iter()
                    .map(|(key, content)| (key.clone(), (content.clone(), mode))),
            );
            return Ok(());
        }
        for item in self.items {
            match data.get(&item.key) {
                Some(content) => insert(
                    files,
                    &item.path,
                    content.clone(),
                    item.mode.unwrap_or(mode),
                )?,
                None if self.optional => {}
                None => {
                    let name = format!("{namespace}/{}", self.name);
                    return Err(Missing::NoKey(self.source.word(), name, item.key.clone()).into());
                }
            }
        }
        Ok(())
    }
}

fn add_downward(
    items: &[DownwardItem],
    mode: u32,
    downward: &Downward<'_>,
    files: &mut Files,
) -> Result<(), VolumeError> {
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(&field.field_path, downward)?,
            (None, Some(resource)) => resource_value(resource, None, downward)?,
            (None, None) => String::new(),
        };
        insert(
            files,
            &item.path,
            value.into_bytes(),
            item.mode.unwrap_or(mode),
        )?;
    }
    Ok(())
}

fn insert(files: &mut Files, path: &str, content: Vec<u8>, mode: u32) -> Result<(), VolumeError> {
    let safe = !path.is_empty()
        && !path.starts_with('/')
        && path
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with(".."));
    if !safe {
        return Err(VolumeError::Escapes(path.to_owned()));
    }
    files.insert(path.to_owned(), (content, mode));
    Ok(())
}
