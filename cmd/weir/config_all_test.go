package main

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// everything gives every setting of the file a value other than its default.
const everything = `
node:
  name: n1
  bind: 127.0.0.1:1234
  advertise: 127.0.0.1:1235
  join: [127.0.0.1:1236]
  cluster: shop
  zone: east
  secret_file: %[1]s
  accept_secret_files: [%[4]s]
  operator_token_file: %[2]s
  min_members: 2
  value_limit: 2MiB
  in_flight_bytes: 32MiB
  connections: 2
  drain_timeout: 3s
  rejoin_interval: 4s
  give_up: 5h
  ring: {partitions: 127, load: 1.5, replicas: 10}
  gossip: {probe_interval: 1s, probe_timeout: 300ms, hold_down: 9s, suspicion_mult: 4}
namespaces:
  product:
    origin:
      url: http://127.0.0.1:9000/{key}
      concurrency: 64
      min_concurrency: 3
      rate: 100.5
      burst: 7
      timeout: 1s
      queue: 10
      queue_interval: 200ms
      queue_target: 6ms
      newest_first: true
      breaker: {failures: 0.25, minimum: 30, window: 20s, pause: 2s, probes: 2}
      retry: {budget: 0.1, most: 1, backoff: 20ms}
    freshness:
      ttl: 1m
      max_ttl: 90s
      stale_while_revalidate: 2m
      stale_if_error: 3m
      soft_timeout: 30ms
      negative_ttl: 2s
      error_ttl: 3s
      near_ttl: 4s
      jitter: 0.2
      refresh_ahead: 2
    near_bytes: 1MiB
    owned_bytes: 8MiB
    replicas: 1
    value_limit: 1MiB
    when_isolated: bypass
    invalidate_timeout: 4s
    handoff_rate: 1MiB
    hot_keys_file: %[3]s
    show_keys: true
`

// inCode returns the fields that the file cannot set, and the reason.
func inCode() map[string]string {
	return map[string]string{
		"peer.Discover": "a function", "peer.TLS": "certificates of one's own come with a service of one's own", "peer.Logger": "log, in the file",
		"peer.Registerer": "weir node has its own", "peer.Network": "for tests", "peer.Seed": "for tests",
		"cache.Cluster": "the node", "cache.Loader": "the origin's url", "cache.BatchLoader": "HTTP has no gets of many",
		"cache.BatchSize": "as above", "cache.BatchWindow": "as above", "cache.SharedOrigin": "a value of the program", "cache.Codec": "pages",
		"cache.Clone": "pages are not changed", "cache.ServeLoaded": "pages are decoded as they were encoded", "cache.Logger": "log, in the file", "cache.Now": "for tests", "cache.Tracer": "code", "cache.Seed": "for tests",
	}
}

// unset returns the fields of a struct that have their zero value, including those of nested structs.
func unset(v reflect.Value, path string) (out []string) {
	for i := range v.NumField() {
		f, name := v.Field(i), path+"."+v.Type().Field(i).Name
		switch {
		case !v.Type().Field(i).IsExported():
		case f.Kind() == reflect.Struct:
			out = append(out, unset(f, name)...)
		case f.IsZero():
			out = append(out, name)
		}
	}
	return out
}

// TestConfigSaysEverything checks that each setting of a node and of a cache can be given in the file, or is listed in
// inCode.
func TestConfigSaysEverything(t *testing.T) {
	text := fmt.Sprintf(everything, file(t, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"), file(t, token), filepath.Join(t.TempDir(), "hot"),
		file(t, "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"))
	c, err := parseConfig("weir.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	missing := append(unset(reflect.ValueOf(c.peer), "peer"), unset(reflect.ValueOf(c.namespaces[0].cache), "cache")...)
	left := inCode()
	for _, name := range missing {
		if left[name] == "" {
			t.Errorf("%s cannot be set, or not by what the test sets", name)
		}
		delete(left, name)
	}
	for name := range left {
		t.Errorf("%s is said to be left out", name)
	}
}

// TestConfigGovernorErrors checks that errors in the settings of the governor are reported with their line.
func TestConfigGovernorErrors(t *testing.T) {
	_, err := parseConfig("weir.yml", []byte(`node:
  gossip:
    probe_interval: soon
  ring: {partition: 4}
namespaces:
  p:
    origin:
      url: http://127.0.0.1:9000/{key}
      rate: fast
      breaker:
        failures: 2
      retry: {most: 50}
    freshness: {ttl: 1m, jitter: 7}
    when_isolated: panic
    show_keys: perhaps
`))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{":3: node.gossip.probe_interval", ":4: node.ring.partition ", ":9: namespaces.p.origin.rate", ":14: namespaces.p.when_isolated", ":15: namespaces.p.show_keys"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	_, err = parseConfig("weir.yml", []byte(`namespaces:
  p:
    origin:
      url: http://127.0.0.1:9000/{key}
      breaker:
        failures: 2
      retry: {most: 50}
    freshness:
      ttl: 1m
      jitter: 7
`))
	for _, want := range []string{":5: namespaces.p.origin.breaker", ":7: namespaces.p.origin.retry", ":10: namespaces.p.freshness.jitter"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}
