package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/weircache/weir/peer"
)

// TestShop starts three nodes on loopback: each reads what another one has just written.
func TestShop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	db, err := openShelf(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.store("lamp", 10); err != nil {
		t.Fatal(err)
	}
	var join []string
	urls := make([]string, 3)
	for i := range urls {
		l, err := net.Listen("tcp", "127.0.0.1:0") // a free port
		if err != nil {
			t.Fatal(err)
		}
		bind := l.Addr().String()
		_ = l.Close()
		up := make(chan string, 1)
		wg.Go(func() {
			if err := serve(ctx, db, "127.0.0.1:0", peer.Config{Name: bind, Bind: bind, Join: join}, func(addr string) { up <- addr }); err != nil {
				t.Error(err)
				up <- ""
			}
		})
		if urls[i] = "http://" + <-up + "/product/"; t.Failed() {
			return
		}
		join = []string{bind}
	}
	get := func(url string) string {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Status + " " + string(body)
	}
	for i, price := range []string{"10", "11", "12", "13"} {
		if i > 0 {
			req, _ := http.NewRequest(http.MethodPut, urls[i%3]+"lamp", strings.NewReader(price))
			resp, err := http.DefaultClient.Do(req)
			if err != nil || resp.StatusCode != http.StatusNoContent {
				t.Fatal(resp, err)
			}
			_ = resp.Body.Close()
		}
		for _, url := range urls {
			if got := get(url + "lamp"); got != "200 OK lamp costs "+price+"\n" {
				t.Errorf("after write %d: %q", i, got)
			}
		}
	}
	if got := get(urls[0] + "chair"); !strings.HasPrefix(got, "404") {
		t.Error(got)
	}
}
