/// A nats-server and a Bellhop service, for the examples in the documentation. Dropping it ends the
/// nats-server.
struct Installation {
    server: bellhop_testkit::nats_server::NatsServer,
    _scratch: tempfile::TempDir,
}

impl Installation {
    async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let scratch = tempfile::TempDir::with_prefix("bellhop-client-")?;
        let server = bellhop_testkit::nats_server::NatsServer::start(scratch.path(), Default::default()).await?;
        let probes = bellhop_testkit::local::free_address()?;
        let mut config = bellhop::config::Config { partitions: 1, http: probes.to_string(), ..Default::default() };
        config.nats.url = server.url().to_owned();
        config.history.url = "none".to_owned();
        tokio::spawn(bellhop::service::serve(config, tokio_util::sync::CancellationToken::new()));
        while !bellhop_testkit::local::is_ready(probes).await.unwrap_or(false) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(Self { server, _scratch: scratch })
    }
}
