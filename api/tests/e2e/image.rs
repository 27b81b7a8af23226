//! Images for tests, made of Debian's static busybox: a web server on 8080 that says its version.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use agent::images::{build_archive, busybox_image};

use crate::cluster::Cluster;

/// Puts `reckon.test/web:VERSION` where agents import images from.
pub fn provide(cluster: &Cluster, version: &str) {
    let image = busybox_image(&reference(version), version).unwrap();
    build_archive(&image, &cluster.path(&format!("images/web-{version}.tar"))).unwrap();
}

pub fn reference(version: &str) -> String {
    format!("reckon.test/web:{version}")
}

/// A Deployment `web` of it. `settings` are more lines of its spec, `key: value`.
pub fn deployment(replicas: u32, version: &str, settings: &str) -> String {
    let image = reference(version);
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  {settings}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {image}
        imagePullPolicy: IfNotPresent
        command: ["/bin/sh", "-c", "echo started version $VERSION; exec httpd -f -p 8080 -h /www"]
        ports: [{{containerPort: 8080}}]
        readinessProbe:
          httpGet: {{path: /version, port: 8080}}
          periodSeconds: 1
"#
    )
}

/// The version that a pod answers with, or why it does not.
pub fn version_at(pod_ip: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let address = format!("{pod_ip}:8080")
            .parse()
            .map_err(std::io::Error::other)?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /version HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    if head.starts_with("HTTP/1.") && head.contains(" 200 ") {
        Ok(body.trim().to_string())
    } else {
        Err(head.to_string())
    }
}
