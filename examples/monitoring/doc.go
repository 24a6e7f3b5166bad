// Package monitoring holds alert rules for Prometheus (alerts.yml, with their own tests in
// alerts_test.yml) and a dashboard for Grafana (dashboard.json). Its tests check that every metric
// they name exists. The command: make monitoring.
package monitoring
