//! `reckon demo-image`: a small web server's image as an archive, where agents look for such, for a first deployment without a registry.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::images::{build_archive, busybox_image};
use anyhow::{Context, Result, bail};

/// No registry has this name, so that nothing is asked for it on the network.
const REGISTRY: &str = "reckon.local";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon demo-image web:1
  kubectl create deployment web --image=reckon.local/web:1

Its containers serve HTTP on port 8080, and answer with the version. It is made of this machine's static busybox (Debian's busybox-static).
Any archive that 'docker save' or 'ctr image export' wrote can be put into the same folder; agents import it within seconds.")]
pub struct Args {
    /// The image's name and version; its full name is reckon.local/NAME:VERSION
    #[arg(value_name = "NAME:VERSION", value_parser = parse)]
    image: (String, String),
    /// Where to write NAME-VERSION.tar: the folder that agents import archives from
    #[arg(long, value_name = "DIR", default_value = "reckon-data/images")]
    to: PathBuf,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if !args.to.is_dir() {
        bail!(
            "there is no folder {}: run 'reckon up' first, or say with --to where its --data-dir has its images",
            args.to.display()
        );
    }
    let (name, version) = args.image;
    let reference = format!("{REGISTRY}/{name}:{version}");
    let path = args.to.join(format!("{name}-{version}.tar"));
    build_archive(&busybox_image(&reference, &version)?, &path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    super::output::write(&format!("{reference} is in {}\n", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// As registries take them: the parts become a file's name too.
fn parse(text: &str) -> Result<(String, String), String> {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    match text.split_once(':') {
        Some((name, version)) if plain(name) && plain(version) => {
            Ok((name.to_owned(), version.to_owned()))
        }
        _ => Err(
            "give a name and a version in small letters, digits, '.', '_' and '-', as in web:1"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_an_image_may_be_called() {
        assert_eq!(parse("web:1"), Ok(("web".to_owned(), "1".to_owned())));
        for bad in [
            "web", "web:", ":1", "../web:1", "a/b:1", "Web:1", "-a:1", "web:1:2",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
