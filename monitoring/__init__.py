"""What draws Tenure: the generator of the Grafana dashboards, and the picture of one for the README."""
