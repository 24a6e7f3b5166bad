package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/peer"
)

func TestConfigWhole(t *testing.T) {
	c, err := loadConfig(filepath.Join("..", "..", "examples", "node", "weir.yml"))
	if err != nil {
		t.Fatal(err)
	}
	p := c.namespaces[0]
	if len(c.namespaces) != 2 || p.name != "product" || p.cache.Freshness.StaleIfError != time.Hour || p.cache.OwnedBytes != 512<<20 ||
		p.headers.Get("Accept") != "application/json" || c.peer.Bind != "127.0.0.1:7946" || c.web.grace != 10*time.Second || p.cache.Origin.Concurrency != 64 {
		t.Errorf("%+v", c)
	}
}

// TestConfigErrors checks that all errors are reported at once, each with its line.
func TestConfigErrors(t *testing.T) {
	text := `node:
  bind: 0.0.0.0:7946
  joyn: [a:1]
  join: [nowhere, {a: b}]
  operator_token_file: /nonexistent
  secret_file: /nonexistent
  accept_secret_files: [/nonexistent]
http:
  listen: nowhere
  grace: soon
  grace: 1s
log: {level: loud, format: xml}
namespaces:
  product:
    origin: {url: "http://host/products", timeout: 2h}
    freshness: {stale_if_error: -1s, near_ttl: 1h}
    near_bytes: 12
    owned_bytes: many
    value_limit: 1TiB
    client_max_age: 1h
  "a/b":
    origin: http://host/{key}
    freshness: [1]
whatever: 1
`
	_, err := parseConfig("weir.yml", []byte(text))
	if err == nil {
		t.Fatal("nothing is wrong?")
	}
	got := err.Error()
	for _, want := range []string{
		"weir.yml:2: node.bind: ", "weir.yml:3: node.joyn means nothing here; known are accept_secret_files, advertise, bind, cluster, connections,",
		"weir.yml:4: node.join: one value", "weir.yml:4: node.join: \"nowhere\"", "weir.yml:5: node.operator_token_file: ",
		"weir.yml:6: node.secret_file: ", "weir.yml:7: node.accept_secret_files: ", "weir.yml:9: http.listen: ", "weir.yml:10: http.grace: \"soon\" is no duration", "weir.yml:11: http.grace is given twice, first in line 10",
		"weir.yml:12: log.level: ", "weir.yml:12: log.format: ",
		"weir.yml:15: namespaces.product.origin.url: \"http://host/products\" must have {key}", "weir.yml:15: namespaces.product.origin.timeout: Origin.Timeout",
		"weir.yml:16: namespaces.product.freshness.ttl: Freshness.TTL is 0s", "weir.yml:16: namespaces.product.freshness.stale_if_error: ",
		"weir.yml:17: namespaces.product.near_bytes: NearBytes is 12", "weir.yml:18: namespaces.product.owned_bytes: \"many\" is no size",
		"weir.yml:19: namespaces.product.value_limit: \"1TiB\"", "weir.yml:20: namespaces.product.client_max_age: ",
		"weir.yml:22: namespaces.a/b: a namespace is a part of an address", "weir.yml:22: namespaces.a/b.origin: names with values",
		"weir.yml:23: namespaces.a/b.freshness: names with values", "weir.yml:24: whatever means nothing here; known are http, log, namespaces, node",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %s", want)
		}
	}
	last := 0
	for line := range strings.SplitSeq(got, "\n") {
		n := 0
		for _, c := range strings.TrimPrefix(line, "weir.yml:") {
			if c < '0' || c > '9' {
				break
			}
			n = 10*n + int(c-'0')
		}
		if n < last || n == 0 {
			t.Errorf("out of order, or without a line: %s", line)
		}
		last = n
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestConfigSecret checks that the secret is read and validated, and that it is not revealed.
func TestConfigSecret(t *testing.T) {
	secret := strings.Repeat("5a5b5c5d", 8)
	space := "namespaces: {p: {origin: {url: \"http://h/{key}\"}, freshness: {ttl: 1m}}}\n"
	c, err := parseConfig("weir.yml", []byte(space+"node: {bind: \"10.0.0.1:7946\", secret_file: "+file(t, secret+"\n")+"}"))
	if err != nil || len(c.peer.Secret) != peer.SecretSize {
		t.Errorf("%v, %d bytes", err, len(c.peer.Secret))
	}
	if _, err := parseConfig("weir.yml", []byte(space+"node: {secret_file: "+file(t, secret[1:])+"}")); err == nil || strings.Contains(err.Error(), "5a5b") || !strings.Contains(err.Error(), "openssl rand") {
		t.Error(err)
	}
	if _, err := parseConfig("weir.yml", []byte(space+"node: {bind: \"10.0.0.1:7946\"}")); err == nil || !strings.Contains(err.Error(), "there is no Secret") {
		t.Error(err)
	}
}

func TestConfigBroken(t *testing.T) {
	for text, want := range map[string]string{
		"a: [": "line 1", "": "weir.yml:1: namespaces: there is none", "- 1": "weir.yml:1: the file: names with values", "\x00": "weir.yml",
		"a: &a [*a]": "means nothing here", "namespaces: {p: {origin: {url: 'http://{key}/'}, freshness: {ttl: 1m}}}": "{key} belongs",
		"namespaces: {p: {origin: {url: 'ftp://h/{key}'}, freshness: {ttl: 1m}}}": "must begin with",
	} {
		if _, err := parseConfig("weir.yml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := loadConfig(file(t, strings.Repeat("#", maxConfig+1))); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("node: {bind: 1}\nnamespaces: {p: {origin: {url: 'http://h/{key}'}, freshness: {ttl: 1m}}}")
	f.Add("a: &a\n  b: *a\n<<: *a\n")
	f.Add("? [a]\n: b")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 || strings.Contains(text, "_file") || strings.Contains(text, "bytes") {
			return // it would read files, or allocate the memory that it asks for
		}
		_, _ = parseConfig("weir.yml", []byte(text))
	})
}
