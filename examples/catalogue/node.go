package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// concurrency is the maximum number of concurrent loads from the origin, over all nodes.
const concurrency = 30

// service is one node: an HTTP server that embeds weir.
type service struct {
	store    *store
	products *tier.Cache[Product]
	naive    *naive
}

// runNode is the main function of a node's process. It ends on SIGTERM, on SIGINT, or when its standard input is
// closed: the driver holds the other end, so no node outlives it.
func runNode(args []string) error {
	flags := flag.NewFlagSet("node", flag.ContinueOnError)
	index := flags.Int("index", 0, "number of the node")
	httpAddr := flags.String("http", "", "address of the HTTP server")
	bind := flags.String("peer", "", "address for the other nodes")
	join := flags.String("join", "", "addresses of other nodes, by commas")
	dir := flags.String("dir", "", "folder of the database and the journal")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1)) // returns when the driver has exited
		stop()
	}()

	secret, err := peer.ParseSecret(os.Getenv(secretVariable))
	if err != nil {
		return err
	}
	j, err := openJournal(*dir+"/journal", *index)
	if err != nil {
		return err
	}
	st, err := openStore(*dir+"/products.db", j)
	if err != nil {
		return err
	}
	defer st.db.Close()

	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	node, err := peer.Start(ctx, peer.Config{
		Name: fmt.Sprintf("node-%d", *index), Bind: *bind, Join: strings.Split(*join, ","),
		Secret: secret, MinMembers: nodes, Logger: logger,
	})
	if err != nil {
		return err
	}
	defer node.Close()
	s := &service{store: st}
	s.products, err = tier.New(tier.Config[Product]{
		Cluster:   node,
		Namespace: "product",
		Loader: func(ctx context.Context, fill *tier.Fill[Product]) (Product, error) {
			return st.load(ctx, 'w', fill.Key, fill.Step)
		},
		Freshness: contract,
		Origin:    tier.Origin{Concurrency: concurrency, Timeout: 5 * time.Second},
		Logger:    logger,
	})
	if err != nil {
		return err
	}
	if s.naive, err = newNaive(st); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", *httpAddr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /product/{sku}", s.get)
	mux.HandleFunc("PUT /product/{sku}", s.put)
	mux.HandleFunc("GET /naive/{sku}", s.getNaive)
	mux.Handle("/weir/", node.Handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	down, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	return errors.Join(node.Leave(down), server.Shutdown(down), s.products.Close(down))
}

func (s *service) get(w http.ResponseWriter, r *http.Request) {
	a, err := s.products.Read(r.Context(), r.PathValue("sku"), tier.ReadOptions{MaxAge: tier.AnyAge})
	w.Header().Set("X-Source", a.Source.String())
	if a.Stale {
		w.Header().Set("X-Stale", "1")
	}
	answer(w, a.Value, err)
}

// put writes to the database, then invalidates: every read on any node that begins afterwards returns the new value.
func (s *service) put(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("sku")
	cents, err := strconv.ParseInt(r.FormValue("cents"), 10, 64)
	if err != nil {
		http.Error(w, "cents: give a whole number", http.StatusBadRequest)
		return
	}
	version, err := s.store.setPrice(r.Context(), key, cents)
	if err == nil {
		s.naive.drop(key)
		err = s.products.Invalidate(r.Context(), key)
	}
	answer(w, Product{SKU: key, Cents: cents, Version: version}, err)
}

func (s *service) getNaive(w http.ResponseWriter, r *http.Request) {
	p, err := s.naive.get(r.Context(), r.PathValue("sku"))
	answer(w, p, err)
}

func answer(w http.ResponseWriter, p Product, err error) {
	var over *tier.OverloadedError
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p)
	case errors.Is(err, tier.ErrNotFound):
		http.Error(w, "no such product", http.StatusNotFound)
	case errors.As(err, &over):
		w.Header().Set("Retry-After", strconv.Itoa(int(over.RetryAfter.Seconds()+1)))
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
