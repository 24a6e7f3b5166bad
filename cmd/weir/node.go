package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

func nodeCommand(w *world) *cobra.Command {
	var file string
	var check bool
	c := &cobra.Command{
		Use:   "node --config FILE",
		Short: "Run a node: a cache in front of HTTP origins, for programs in any language",
		Long: `Run a node beside a program in any language. It answers

  GET  /v1/{namespace}/{key}   the value: from the cluster's caches, or from the namespace's origin.
                               ETag and If-None-Match; Age, Cache-Control and Cache-Status; the
                               request's Cache-Control max-age and no-cache ask for fresher answers
  POST /v1/invalidate          {"namespace": "...", "keys": ["..."]}, with the operator's token
  /weir/                       the page, stats, metrics, healthz and readyz

It is configured by one YAML file, which is checked whole: every problem is reported with its line.
SIGTERM and SIGINT end it in order: /weir/readyz says no, requests under way are answered, the other
members are told. A commented example: examples/node/weir.yml.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usageError("--config is missing: name the configuration file")
			}
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			if check {
				_, err := fmt.Fprintf(w.out, "%s: nothing is wrong\n", file)
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return runNode(ctx, cfg, w.err, nil)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "the configuration `file`")
	c.Flags().BoolVar(&check, "check", false, "check the configuration and end")
	_ = c.MarkFlagFilename("config", "yml", "yaml") // it is defined above
	return c
}

// runNode runs a node until ctx ends. started, if not nil, is told where it listens.
func runNode(ctx context.Context, cfg config, log io.Writer, started func(http, peers string)) (err error) {
	options := &slog.HandlerOptions{Level: cfg.logLevel}
	var handler slog.Handler = slog.NewTextHandler(log, options)
	if cfg.logJSON {
		handler = slog.NewJSONHandler(log, options)
	}
	cfg.peer.Logger = slog.New(handler)
	ln, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	defer ln.Close()
	node, err := peer.Start(ctx, cfg.peer)
	if err != nil {
		return err
	}
	defer node.Close()
	client := newClient()
	defer client.CloseIdleConnections()
	f := &front{node: node.Name(), spaces: make(map[string]*space), logger: node.Logger()}
	for _, n := range cfg.namespaces {
		n.cache.Cluster, n.cache.Loader, n.cache.Logger = node, newOrigin(n, client).load, node.Logger()
		cache, err := tier.New(n.cache)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeCache(cache)) }()
		f.spaces[n.name] = &space{cache: cache, clientMaxAge: n.clientMaxAge}
	}
	patience := time.Minute // for one request; the slowest origin may need longer
	for _, n := range cfg.namespaces {
		patience = max(patience, 2*n.cache.Origin.Timeout+10*time.Second)
	}
	var draining atomic.Bool
	streams, endStreams := context.WithCancel(context.Background())
	defer endStreams()
	server := &http.Server{
		Handler:           routes(f, node, &draining),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
		ErrorLog:       slog.NewLogLogger(handler, slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return streams },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	node.Logger().Info("serving", "http", ln.Addr().String(), "namespaces", len(cfg.namespaces), "version", peer.Version())
	if started != nil {
		started(ln.Addr().String(), node.Addr())
	}
	select {
	case err := <-served:
		return fmt.Errorf("http: %w", err)
	case <-ctx.Done():
	}

	node.Logger().Info("going down", "drain", cfg.drain, "grace", cfg.grace)
	draining.Store(true)
	wait(cfg.drain)
	down, cancel := context.WithTimeout(context.Background(), cfg.grace)
	defer cancel()
	// Requests that last, which are the streams of the page, end with their context.
	defer time.AfterFunc(min(cfg.grace/2, time.Second), endStreams).Stop()
	err = server.Shutdown(down)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("some requests were not answered within http.grace, %v", cfg.grace)
		_ = server.Close()
	}
	return errors.Join(err, node.Leave(down))
}

func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// closeCache closes a cache, and waits a while for its loads.
func closeCache(c *tier.Cache[page]) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.Close(ctx)
}

// routes is what the node's HTTP server answers.
func routes(f *front, node *peer.Node, draining *atomic.Bool) http.Handler {
	eyes := node.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/v1/invalidate":
			eyes.ServeHTTP(w, r)
		case len(path) >= 4 && path[:4] == "/v1/":
			f.ServeHTTP(w, r)
		case draining.Load() && (path == "/weir/readyz" || path == "/readyz"):
			http.Error(w, "going down", http.StatusServiceUnavailable)
		case len(path) >= 6 && path[:6] == "/weir/", path == "/metrics", path == "/healthz", path == "/readyz":
			eyes.ServeHTTP(w, r)
		case path == "/" || path == "/weir":
			http.Redirect(w, r, "/weir/", http.StatusTemporaryRedirect)
		default:
			http.Error(w, "values are at /v1/{namespace}/{key}, the page is at /weir/", http.StatusNotFound)
		}
	})
}
