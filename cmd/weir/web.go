package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"

	"github.com/weircache/weir/peer"
)

// webConfig configures the node's HTTP servers.
type webConfig struct {
	listen         string        // "host:port" of the values, and of /weir/ if operator is empty
	operator       string        // "host:port" of /weir/ and POST /v1/invalidate only; "": not separate
	hosts          hostSet       // names by which clients may call the node
	maxConnections int           // on each listener
	drain          time.Duration // how long /readyz fails before the listeners close
	grace          time.Duration // for requests that are still running then
}

const (
	defaultConnections = 4096 // at a few tens of KiB each they take less than the caches
	defaultGrace       = 10 * time.Second
)

// readWeb reads the section http.
func readWeb(s *section) webConfig {
	c := webConfig{
		listen: s.text("listen", "127.0.0.1:8080"), operator: s.text("operator_listen", ""), maxConnections: s.integer("max_connections"),
		drain: s.duration("drain"), grace: s.duration("grace"), hosts: s.texts("hosts"),
	}
	for name, listen := range map[string]string{"listen": c.listen, "operator_listen": c.operator} {
		if _, _, err := net.SplitHostPort(listen); err != nil && (listen != "" || name == "listen") {
			s.wrong(name, "%q is not a \"host:port\": %v", listen, err)
		}
	}
	for i, host := range c.hosts {
		if host == "" || strings.ContainsAny(host, "/:@ ") || strings.Contains(strings.TrimPrefix(host, "*"), "*") {
			s.wrong("hosts", "%q is not a name: write it as cache.example.com, as .example.com with all names below it, or as * for any", host)
		}
		c.hosts[i] = strings.ToLower(host)
	}
	if c.maxConnections == 0 {
		c.maxConnections = defaultConnections
	} else if c.maxConnections < 0 {
		s.wrong("max_connections", "%d is below 0", c.maxConnections)
	}
	if c.grace == 0 {
		c.grace = defaultGrace
	}
	if c.drain < 0 || c.grace < 0 {
		s.wrong("drain", "drain and grace cannot be below 0")
	}
	return c
}

// A hostSet is the set of names by which clients may call the node. A malicious page in a client's browser can call the
// node by the attacker's own host name, which resolves to the node's address (DNS rebinding). The node rejects such a
// request. IP addresses, localhost and names without a dot cannot belong to an attacker.
type hostSet []string

// allows reports whether a request with this Host may be answered.
func (s hostSet) allows(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost") {
		return true
	}
	return slices.ContainsFunc(s, func(name string) bool {
		return name == "*" || name == host || strings.HasPrefix(name, ".") && strings.HasSuffix(host, name)
	})
}

// guard answers requests for other names with an explanation.
func (s hostSet) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.allows(r.Host) {
			http.Error(w, fmt.Sprintf("this node does not answer to the name %.100q: add it to http.hosts", r.Host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// web is the node's HTTP servers: the front with the values and, with http.operator_listen, a separate one for
// operators.
type web struct {
	cfg       webConfig
	log       slog.Handler
	draining  atomic.Bool // from SIGTERM on: /readyz fails
	front     net.Listener
	operator  net.Listener // nil: the front serves operators as well
	servers   []*http.Server
	serving   sync.WaitGroup
	failed    chan error // reports a server that ended by itself
	streaming context.Context
	endStream context.CancelFunc // ends long-lived requests, which are the page's streams
}

// open opens the listeners. It does not serve requests yet.
func (c webConfig) open(log slog.Handler) (*web, error) {
	w := &web{cfg: c, log: log, failed: make(chan error, 2)}
	var err error
	if w.front, err = net.Listen("tcp", c.listen); err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	if c.operator != "" {
		if w.operator, err = net.Listen("tcp", c.operator); err != nil {
			return nil, errors.Join(fmt.Errorf("http.operator_listen: %w", err), w.front.Close())
		}
	}
	w.streaming, w.endStream = context.WithCancel(context.Background())
	return w, nil
}

// close closes the listeners of a web that is not serving, whether it has stopped or never started.
func (w *web) close() {
	w.endStream()
	_ = w.front.Close() // fails if a shut-down server has closed it already
	if w.operator != nil {
		_ = w.operator.Close()
	}
}

// serve starts the servers. patience is the timeout of a request. shutdown ends the servers.
func (w *web) serve(f *front, node *peer.Node, patience time.Duration) {
	values, operator := w.handlers(f, node)
	w.start(w.front, values, patience)
	if w.operator != nil {
		w.start(w.operator, operator, patience)
	}
}

func (w *web) start(ln net.Listener, h http.Handler, patience time.Duration) {
	s := &http.Server{
		Handler:           w.cfg.hosts.guard(h),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
		ErrorLog:       slog.NewLogLogger(w.log, slog.LevelDebug),
		ConnState:      w.fullness(ln.Addr().String()),
	}
	w.servers = append(w.servers, s)
	w.serving.Go(func() { // joined by shutdown
		if err := s.Serve(netutil.LimitListener(ln, w.cfg.maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			w.failed <- err
		}
	})
}

// fullPause is how long the log stays silent after a message that a listener is full.
const fullPause = time.Minute

// fullness counts a listener's connections, and logs when the maximum is reached.
func (w *web) fullness(addr string) func(net.Conn, http.ConnState) {
	var open, quietUntil atomic.Int64
	logger := slog.New(w.log)
	return func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			now, until := time.Now().UnixNano(), quietUntil.Load()
			if open.Add(1) >= int64(w.cfg.maxConnections) && now >= until && quietUntil.CompareAndSwap(until, now+int64(fullPause)) {
				logger.Warn("all connections of this listener are in use: further clients wait; raise http.max_connections, or close idle connections at the clients",
					"listener", addr, "max_connections", w.cfg.maxConnections)
			}
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
}

// shutdown closes the listeners at once, and gives running requests http.grace to end.
func (w *web) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.grace)
	defer cancel()
	w.endStream()
	errs := make(chan error, len(w.servers))
	for _, s := range w.servers {
		go func() {
			err := s.Shutdown(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.Join(fmt.Errorf("some requests were not answered within http.grace, %v", w.cfg.grace), s.Close())
			}
			errs <- err
		}()
	}
	var all error
	for range w.servers {
		all = errors.Join(all, <-errs)
	}
	w.serving.Wait()
	return all
}

// handlers returns the handlers of the two listeners. Without a listener for operators the first serves everything.
func (w *web) handlers(f *front, node *peer.Node) (values, operator http.Handler) {
	pages := node.Handler()
	operator = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case w.draining.Load() && (path == "/weir/readyz" || path == "/readyz"):
			http.Error(rw, "going down", http.StatusServiceUnavailable)
		case strings.HasPrefix(path, "/weir/"), path == "/metrics", path == "/healthz", path == "/readyz", path == "/v1/invalidate":
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			if path == "/weir/events" {
				defer context.AfterFunc(w.streaming, cancel)()
			}
			pages.ServeHTTP(rw, r.WithContext(ctx))
		case path == "/" || path == "/weir":
			http.Redirect(rw, r, "/weir/", http.StatusTemporaryRedirect)
		case w.operator != nil:
			http.Error(rw, "the page is at /weir/, values are at another listener", http.StatusNotFound)
		default:
			http.Error(rw, "values are at /v1/{namespace}/{key}, the page is at /weir/", http.StatusNotFound)
		}
	})
	values = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		switch probe := strings.TrimPrefix(path, "/weir"); {
		case strings.HasPrefix(path, "/v1/") && path != "/v1/invalidate":
			f.ServeHTTP(rw, r)
		case w.operator == nil:
			operator.ServeHTTP(rw, r)
		case probe == "/healthz":
			_, _ = io.WriteString(rw, "ok\n")
		case probe == "/readyz" && (w.draining.Load() || node.Ready() != nil):
			http.Error(rw, "not ready", http.StatusServiceUnavailable)
		case probe == "/readyz":
			_, _ = io.WriteString(rw, "ok\n")
		default:
			http.Error(rw, "values are at /v1/{namespace}/{key}; what operators need is at another listener", http.StatusNotFound)
		}
	})
	return values, operator
}
