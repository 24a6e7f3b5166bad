package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// maxConfig is the longest configuration file, in bytes.
const maxConfig = 1 << 20

// config is the configuration of weir node.
type config struct {
	peer       peer.Config
	web        webConfig
	tokenFile  string
	logLevel   slog.Level
	logJSON    bool
	namespaces []namespaceConfig
}

// namespaceConfig configures one namespace: a cache and the HTTP origin behind it.
type namespaceConfig struct {
	name         string
	address      address
	headers      http.Header     // of each request to the origin
	redirects    map[string]bool // the other origins to which the origin may redirect, see originOf
	control      controlPolicy   // the effect of the origin's Cache-Control
	obey         bool            // obey the clients' Cache-Control
	clientMaxAge time.Duration   // for Cache-Control; 0: clients must revalidate each time
	cache        tier.Config[page]
}

// loadConfig reads a file and checks all of it. The error lists every problem with its line.
func loadConfig(file string) (config, error) {
	f, err := os.Open(file)
	if err != nil {
		return config{}, usageError(fmt.Sprintf("the configuration cannot be read: %v", err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return config{}, usageError(fmt.Sprintf("the configuration cannot be read: %v", err))
	}
	if len(text) > maxConfig {
		return config{}, usageError(fmt.Sprintf("%s: longer than %d bytes: is that a configuration?", file, maxConfig))
	}
	return parseConfig(file, text)
}

func parseConfig(file string, text []byte) (config, error) {
	var doc yaml.Node
	p := &problems{file: file}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var next yaml.Node
		err := d.Decode(&next)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return config{}, usageError(fmt.Sprintf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: ")))
		}
		if doc.Kind == 0 {
			doc = next
		} else if len(next.Content) > 0 && next.Content[0].Tag != "!!null" {
			p.add(next.Content[0].Line, "a second document begins (after \"---\"), which would have no effect: put everything into the first")
		}
	}
	var top *yaml.Node
	if len(doc.Content) > 0 {
		top = doc.Content[0]
	}
	root := newSection(top, "", 1, p)
	var c config

	node := root.section("node")
	c.peer = peer.Config{
		Name: node.text("name", ""), Bind: node.text("bind", ""), Advertise: node.text("advertise", ""),
		Join: node.texts("join"), ClusterName: node.text("cluster", ""), Zone: node.text("zone", ""), MinMembers: node.integer("min_members"),
		ValueLimit: int(min(node.size("value_limit"), peer.MaxValueLimit+1)), InFlightBytes: node.size("in_flight_bytes"),
		Connections: node.integer("connections"), DrainTimeout: node.duration("drain_timeout"), RejoinInterval: node.duration("rejoin_interval"),
		GiveUp: node.duration("give_up"),
	}
	placing := node.section("ring")
	c.peer.Ring = ring.Config{Partitions: placing.integer("partitions"), Load: placing.number("load"), Replicas: placing.integer("replicas")}
	placing.end()
	gossip := node.section("gossip")
	c.peer.Gossip = peer.Gossip{
		ProbeInterval: gossip.duration("probe_interval"), ProbeTimeout: gossip.duration("probe_timeout"),
		HoldDown: gossip.duration("hold_down"), SuspicionMult: gossip.integer("suspicion_mult"),
	}
	gossip.end()
	c.peer.Secret = readClusterSecret(node, "secret_file")
	for _, file := range node.texts("accept_secret_files") {
		if secret, err := clusterSecret(file); err != nil {
			node.wrong("accept_secret_files", "%v", err)
		} else {
			c.peer.AcceptSecrets = append(c.peer.AcceptSecrets, secret)
		}
	}
	c.tokenFile = node.text("operator_token_file", "")
	if c.tokenFile != "" {
		token, err := readSecret(c.tokenFile)
		if err != nil {
			node.wrong("operator_token_file", "%v", err)
		}
		c.peer.OperatorToken = token
	}
	checkPeer(node, c.peer)
	node.end()

	web := root.section("http")
	c.web = readWeb(web)
	web.end()

	log := root.section("log")
	if err := c.logLevel.UnmarshalText([]byte(log.text("level", "info"))); err != nil {
		log.wrong("level", "it is debug, info, warn or error")
	}
	switch log.text("format", "text") {
	case "json":
		c.logJSON = true
	case "text":
	default:
		log.wrong("format", "it is text or json")
	}
	log.end()

	spaces := root.section("namespaces")
	for _, name := range spaces.names() {
		c.namespaces = append(c.namespaces, readNamespace(name, spaces.section(name)))
	}
	if len(c.namespaces) == 0 {
		root.wrong("namespaces", "there is none: name at least one, with its origin's url and freshness.ttl")
	}
	root.end()
	return c, p.err()
}

// readNamespace reads one namespace and lets the cache check the settings.
func readNamespace(name string, s *section) namespaceConfig {
	n := namespaceConfig{name: name, headers: make(http.Header), redirects: make(map[string]bool)}
	if name == "" || strings.ContainsAny(name, "/?#") || name == "invalidate" {
		s.wrong("", "a namespace is a part of an address: its name cannot be empty, \"invalidate\", or have /, ? or # in it")
	}
	origin := s.section("origin")
	var err error
	query := s.text("query", "refuse")
	if query != "refuse" && query != "key" {
		s.wrong("query", "%q is not refuse or key", query)
	}
	if n.address, err = parseAddress(origin.text("url", ""), query == "key"); err != nil {
		origin.wrong("url", "%v", err)
	}
	headers := origin.section("headers")
	for _, h := range headers.names() {
		value := headers.text(h, "")
		if err := checkHeader(h, value); err != nil {
			headers.wrong(h, "%v", err)
		}
		n.headers.Set(h, value)
	}
	for _, text := range origin.texts("redirects") {
		to, err := parseOrigin(text)
		if err != nil {
			origin.wrong("redirects", "%v", err)
		}
		n.redirects[to] = true
	}
	if n.control, err = parseControlPolicy(origin.text("cache_control", "bans")); err != nil {
		origin.wrong("cache_control", "%v", err)
	}
	switch clients := s.text("client_cache_control", "obey"); clients {
	case "obey":
		n.obey = true
	case "ignore":
	default:
		s.wrong("client_cache_control", "%q is not obey or ignore", clients)
	}
	fresh := s.section("freshness")
	n.cache = tier.Config[page]{
		Namespace: name,
		Freshness: tier.Freshness{
			TTL: fresh.duration("ttl"), MaxTTL: fresh.duration("max_ttl"), StaleWhileRevalidate: fresh.duration("stale_while_revalidate"),
			StaleIfError: fresh.duration("stale_if_error"), NegativeTTL: fresh.duration("negative_ttl"),
			ErrorTTL: fresh.duration("error_ttl"), NearTTL: fresh.duration("near_ttl"), SoftTimeout: fresh.duration("soft_timeout"),
			Jitter: fresh.number("jitter"), RefreshAhead: fresh.number("refresh_ahead"),
		},
		Origin:    readOrigin(origin),
		NearBytes: s.size("near_bytes"), OwnedBytes: s.size("owned_bytes"), Replicas: s.integer("replicas"), ValueLimit: int(min(s.size("value_limit"), tier.MaxValueLimit+1)),
		WhenIsolated: readIsolated(s), InvalidateTimeout: s.duration("invalidate_timeout"), HandoffRate: s.size("handoff_rate"),
		HotKeysFile: s.text("hot_keys_file", ""), ShowKeys: s.truth("show_keys"),
	}
	if n.clientMaxAge = s.duration("client_max_age"); n.clientMaxAge < 0 || n.clientMaxAge > n.cache.Freshness.TTL {
		s.wrong("client_max_age", "%v is not between 0 and freshness.ttl, %v", n.clientMaxAge, n.cache.Freshness.TTL)
	}
	f := &n.cache.Freshness // these decide how long the origin's answers are kept, see origin.answer
	f.ErrorTTL = cmp.Or(f.ErrorTTL, time.Second)
	f.NegativeTTL = cmp.Or(f.NegativeTTL, min(f.TTL, 5*time.Second))
	if err := checkWritable(n.cache.HotKeysFile); err != nil {
		s.wrong("hot_keys_file", "%v", err)
	}
	origin.end()
	fresh.end()
	s.end()

	// The cache's own check names its fields. Each problem is reported at the corresponding line.
	check := n.cache
	check.Loader, check.HotKeysFile = newOrigin(n, nil).load, "" // do not read or write files yet
	if err := checkCache(check); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			line = strings.TrimPrefix(line, fmt.Sprintf("weir: cache %q: ", name))
			at, field := s, ""
			switch {
			case strings.HasPrefix(line, "Freshness."):
				at, field = fresh, strings.TrimPrefix(line, "Freshness.")
			case strings.HasPrefix(line, "Origin."):
				at, field = origin, strings.TrimPrefix(line, "Origin.")
			default:
				field = line
			}
			field, _, _ = strings.Cut(field, " ")
			if group, _, ok := strings.Cut(field, "."); ok { // Breaker and Retry: the line where their section begins
				field = group
			}
			at.wrong(snake(field), "%s", line)
		}
	}
	return n
}

// readOrigin reads the settings of the governor.
func readOrigin(s *section) tier.Origin {
	o := tier.Origin{
		Concurrency: s.integer("concurrency"), MinConcurrency: s.integer("min_concurrency"),
		Rate: s.number("rate"), Burst: s.integer("burst"), Timeout: s.duration("timeout"),
		Queue: s.integer("queue"), QueueInterval: s.duration("queue_interval"), QueueTarget: s.duration("queue_target"), NewestFirst: s.truth("newest_first"),
	}
	breaker := s.section("breaker")
	o.Breaker = tier.Breaker{
		Failures: breaker.number("failures"), Minimum: breaker.integer("minimum"), Window: breaker.duration("window"),
		Pause: breaker.duration("pause"), Probes: breaker.integer("probes"),
	}
	breaker.end()
	retry := s.section("retry")
	o.Retry = tier.Retry{Budget: retry.number("budget"), Most: retry.integer("most"), Backoff: retry.duration("backoff")}
	retry.end()
	return o
}

func readIsolated(s *section) tier.WhenIsolated {
	switch v := s.text("when_isolated", "serve_stale"); v {
	case "serve_stale":
	case "bypass":
		return tier.Bypass
	case "fail":
		return tier.Fail
	default:
		s.wrong("when_isolated", "%q is not serve_stale, bypass or fail", v)
	}
	return tier.ServeStale
}

// readClusterSecret reads the secret from the file that the named setting of the section gives, if it is set.
func readClusterSecret(s *section, name string) peer.Secret {
	file := s.text(name, "")
	if file == "" {
		return nil
	}
	secret, err := clusterSecret(file)
	if err != nil {
		s.wrong(name, "%v", err)
	}
	return secret
}

func clusterSecret(file string) (peer.Secret, error) {
	text, err := readSecret(file)
	if err != nil {
		return nil, err
	}
	return peer.ParseSecret(text)
}

// checkPeer lets the node check its configuration, and reports each problem at the corresponding line.
func checkPeer(s *section, cfg peer.Config) {
	err := cfg.Check()
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		line = strings.TrimPrefix(line, peer.ErrConfig.Error()+": ")
		field, text, _ := strings.Cut(line, ": ")
		field, _, _ = strings.Cut(field, "[")
		name := snake(field)
		switch field {
		case "ClusterName":
			name = "cluster"
		case "Secret":
			name = "secret_file"
		case "AcceptSecrets":
			name = "accept_secret_files"
		case "OperatorToken":
			name = "operator_token_file"
		}
		s.wrong(name, "%s", text)
	}
}

// checkCache lets the cache check its configuration by creating and closing a cache.
func checkCache(cfg tier.Config[page]) error {
	c, err := tier.New(cfg)
	if err != nil {
		return err
	}
	return closeCache(c)
}

// snake converts a field's name to the name in the file: "NearBytes" to "near_bytes".
func snake(field string) string {
	if field == "TTL" {
		return "ttl"
	}
	field = strings.ReplaceAll(field, "TTL", "Ttl")
	var b strings.Builder
	for i, r := range field {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// connectionHeaders are header fields that the connection to the origin sets itself, or that would turn the answer into
// one to a different request.
var connectionHeaders = newHeaderSet("Connection", "Content-Length", "Expect", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since",
	"Keep-Alive", "Proxy-Connection", "Range", "Te", "Trailer", "Transfer-Encoding", "Upgrade")

// checkHeader returns an error if a header field may not be sent to the origin.
func checkHeader(name, value string) error {
	if name == "" || strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return fmt.Errorf("%q is not a name of a header field: those have letters, digits and hyphens", name)
	}
	if connectionHeaders[http.CanonicalHeaderKey(name)] {
		return errors.New("the node sets this header field itself: leave it out")
	}
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return errors.New("the value has a control character, such as the end of a line")
		}
	}
	return nil
}

// checkWritable returns an error if the list of hot keys could not be written to a file. It leaves nothing behind.
func checkWritable(file string) error {
	if file == "" {
		return nil
	}
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%q is not a regular file", file)
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // as the list is written later
	if err != nil {
		return fmt.Errorf("its directory cannot be written to: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// readSecret reads a file that contains one secret text.
func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
