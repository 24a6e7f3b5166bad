package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
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
                               request's Cache-Control max-age and no-cache ask for fresher answers.
                               cmd/weir/HTTP.md in the source has all rules
  POST /v1/invalidate          {"namespace": "...", "keys": ["..."]}, with the operator's token
  /weir/                       the page, stats, metrics, healthz and readyz; with
                               http.operator_listen on a listener of its own

It is configured by one YAML file, which is checked whole: every problem is reported with its line.
SIGTERM and SIGINT end it in order: /weir/readyz says no; then the node hands over what it holds, and
requests that run are answered, at the same time. A commented example: examples/node/weir.yml.`,
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
			return runNode(ctx, cfg, w.err, stages{})
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "configuration `file`")
	c.Flags().BoolVar(&check, "check", false, "check the configuration and exit")
	_ = c.MarkFlagFilename("config", "yml", "yaml") // the flag is defined above
	return c
}

// stages are hooks for tests into a node's life. Either may be nil.
type stages struct {
	started func(addresses)     // the node listens
	drain   func(time.Duration) // the node has stopped being ready; replaces the wait of that time
}

// runNode runs a node until ctx ends.
func runNode(ctx context.Context, cfg config, log io.Writer, s stages) (err error) {
	options := &slog.HandlerOptions{Level: cfg.logLevel}
	var handler slog.Handler = slog.NewTextHandler(log, options)
	if cfg.logJSON {
		handler = slog.NewJSONHandler(log, options)
	}
	cfg.peer.Logger = slog.New(handler)
	web, err := cfg.web.open(handler)
	if err != nil {
		return err
	}
	defer web.close()
	node, err := peer.Start(ctx, cfg.peer)
	if err != nil {
		return err
	}
	defer node.Close()
	transport := newTransport()
	defer transport.CloseIdleConnections()
	f := &front{node: node.Name(), spaces: make(map[string]*space), logger: node.Logger()}
	for _, n := range cfg.namespaces {
		n.cache.Cluster, n.cache.Loader, n.cache.Logger = node, newOrigin(n, transport).load, node.Logger()
		cache, err := tier.New(n.cache)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeCache(cache)) }()
		f.spaces[n.name] = newSpace(n, cache)
	}
	patience := time.Minute // timeout of one request; the slowest origin may need longer
	for _, n := range cfg.namespaces {
		patience = max(patience, 2*n.cache.Origin.Timeout+10*time.Second)
	}
	web.serve(f, node, patience)
	at := addresses{web: web.front.Addr().String(), peers: node.Addr()}
	if web.operator != nil {
		at.operator = web.operator.Addr().String()
	}
	node.Logger().Info("serving", "http", at.web, "operator", at.operator, "namespaces", len(cfg.namespaces), "version", peer.Version())
	if s.started != nil {
		s.started(at)
	}
	select {
	case err := <-web.failed:
		return errors.Join(fmt.Errorf("http: %w", err), web.shutdown())
	case <-ctx.Done():
	}

	node.Logger().Info("going down", "drain", cfg.web.drain, "drain_timeout", cfg.peer.DrainTimeout, "grace", cfg.web.grace)
	web.draining.Store(true)
	if s.drain == nil {
		s.drain = time.Sleep
	}
	s.drain(cfg.web.drain)
	return goDown(web, node, cfg.peer.DrainTimeout)
}

// A leaver is the part of a node that leaves the cluster.
type leaver interface {
	Leave(ctx context.Context) error
}

// goDown hands over what the node holds and shuts the front down. The two run at the same time, each with its own
// timeout, so a client that does not read its answer does not cost the other members anything.
func goDown(front *web, node leaver, drainTimeout time.Duration) error {
	left := make(chan error, 1)
	go func() { left <- leave(node, drainTimeout) }() // joined below
	err := front.shutdown()
	return errors.Join(err, <-left)
}

// addresses are where a node listens. operator is empty if the front serves operators as well.
type addresses struct{ web, operator, peers string }

// leaveSlack is what a leave may take besides the handoff: telling the others, twice.
const leaveSlack = 10 * time.Second

// leave takes the node out of the cluster after it has handed over what it holds.
func leave(node leaver, drainTimeout time.Duration) error {
	if drainTimeout == 0 {
		drainTimeout = peer.DefaultDrainTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(drainTimeout, 0)+leaveSlack)
	defer cancel()
	return node.Leave(ctx)
}

// closeCache closes a cache and waits a while for its loads.
func closeCache(c *tier.Cache[page]) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.Close(ctx)
}
