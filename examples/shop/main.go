// Shop is the smallest service that embeds weir in a cluster: an HTTP server with one resource. Start several:
//
//	go run ./shop -http :8081 -bind 127.0.0.1:7001 &
//	go run ./shop -http :8082 -bind 127.0.0.1:7002 -join 127.0.0.1:7001 &
//	curl localhost:8081/product/lamp; curl -X PUT -d 12 localhost:8082/product/lamp; curl localhost:8081/product/lamp
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// Product is what the shop sells.
type Product struct {
	Name  string
	Price int
}

// shelf stands for the database that all nodes share.
type shelf struct{ prices sync.Map }

func (s *shelf) load(_ context.Context, name string) (Product, error) {
	price, ok := s.prices.Load(name)
	if !ok {
		return Product{}, tier.ErrNotFound
	}
	return Product{name, price.(int)}, nil
}

// serve runs one node until ctx ends. ready is called with the address of its HTTP server.
func serve(ctx context.Context, db *shelf, addr string, cfg peer.Config, ready func(addr string)) error {
	node, err := peer.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer within(ctx, node.Leave)
	products, err := tier.New(tier.Config[Product]{
		Cluster:   node,
		Namespace: "product",
		Loader:    tier.ByKey(db.load),
		Freshness: tier.Freshness{TTL: time.Minute, StaleWhileRevalidate: 5 * time.Minute, NearTTL: 2 * time.Second},
		Origin:    tier.Origin{Concurrency: 64, Timeout: 2 * time.Second},
	})
	if err != nil {
		return err
	}
	defer within(ctx, products.Close)

	mux := http.NewServeMux()
	mux.Handle("/weir/", http.StripPrefix("/weir", node.Handler()))
	mux.HandleFunc("GET /product/{name}", func(w http.ResponseWriter, r *http.Request) {
		p, err := products.Get(r.Context(), r.PathValue("name"))
		var busy *tier.OverloadedError
		switch {
		case errors.Is(err, tier.ErrNotFound):
			http.NotFound(w, r)
		case errors.As(err, &busy):
			w.Header().Set("Retry-After", strconv.Itoa(1+int(busy.RetryAfter.Seconds())))
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadGateway)
		default:
			fmt.Fprintf(w, "%s costs %d\n", p.Name, p.Price)
		}
	})
	mux.HandleFunc("PUT /product/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		var price int
		if _, err := fmt.Fscan(r.Body, &price); err != nil {
			http.Error(w, "the body must be a number", http.StatusBadRequest)
			return
		}
		db.prices.Store(name, price)
		if err := products.Invalidate(r.Context(), name); err != nil { // the write stands; some nodes may be late
			log.Print(err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		within(ctx, server.Shutdown)
	})()
	ready(listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped // requests that were under way have been answered
	return nil
}

// within gives the end of something ten seconds, although ctx has ended.
func within(ctx context.Context, end func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := end(ctx); err != nil {
		log.Print(err)
	}
}

func main() {
	addr := flag.String("http", "127.0.0.1:8081", "address of the HTTP server")
	bind := flag.String("bind", "127.0.0.1:7001", "address of the node")
	join := flag.String("join", "", "addresses of other nodes, with commas between them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cfg := peer.Config{Name: *bind, Bind: *bind}
	if *join != "" {
		cfg.Join = strings.Split(*join, ",")
	}
	db := new(shelf)
	db.prices.Store("lamp", 10)
	if err := serve(ctx, db, *addr, cfg, func(addr string) { log.Print("http://", addr) }); err != nil {
		log.Fatal(err)
	}
}
