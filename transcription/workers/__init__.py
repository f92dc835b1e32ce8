"""Programs outside the web process: workers, the devices they use, the supervisor that starts them."""
