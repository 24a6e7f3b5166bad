// Shop is the smallest service that embeds weir in a cluster: an HTTP server with one resource. Start several, each in
// its own terminal:
//
//	go run ./shop -http 127.0.0.1:8081 -bind 127.0.0.1:7001
//	go run ./shop -http 127.0.0.1:8082 -bind 127.0.0.1:7002 -join 127.0.0.1:7001
//
// Write to one, read from the other:
//
//	curl -X PUT -d 10 localhost:8081/product/lamp; curl localhost:8082/product/lamp
//	curl -X PUT -d 12 localhost:8082/product/lamp; curl localhost:8081/product/lamp
//
// The page of the cluster is at http://localhost:8081/weir/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
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

// shelf stands for the database that all nodes share: a folder with a file for each product.
type shelf struct{ *os.Root }

func openShelf(dir string) (shelf, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return shelf{}, err
	}
	root, err := os.OpenRoot(dir)
	return shelf{root}, err
}

func (s shelf) load(_ context.Context, name string) (Product, error) {
	text, err := s.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Product{}, tier.ErrNotFound
	}
	if err != nil {
		return Product{}, err
	}
	price, err := strconv.Atoi(string(text))
	return Product{name, price}, err
}

func (s shelf) store(name string, price int) error {
	temporary := fmt.Sprintf(".%s.%d", name, os.Getpid()) // so that a reader never sees half of it
	if err := s.WriteFile(temporary, []byte(strconv.Itoa(price)), 0o600); err != nil {
		return err
	}
	return s.Rename(temporary, name)
}

// serve runs one node until ctx ends. ready is called with the address of its HTTP server.
func serve(ctx context.Context, db shelf, addr string, cfg peer.Config, ready func(addr string)) error {
	node, err := peer.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close() // in case it has not left
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
		if err := db.store(name, price); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := products.Invalidate(r.Context(), name); err != nil { // the write stands; some nodes may learn of it late
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
		within(ctx, node.Leave)      // the cache hands over what it has, so it must still be open; the page's streams end
		within(ctx, server.Shutdown) // running requests are answered
	})()
	ready(listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

// within gives a shutdown function ten seconds, although ctx has ended.
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
	dir := flag.String("db", filepath.Join(os.TempDir(), "weir-shop"), "folder that stands for the database, the same for all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cfg := peer.Config{Name: *bind, Bind: *bind}
	if *join != "" {
		cfg.Join = strings.Split(*join, ",")
	}
	db, err := openShelf(*dir)
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, db, *addr, cfg, func(addr string) { log.Print("http://", addr) }); err != nil {
		log.Fatal(err)
	}
}
