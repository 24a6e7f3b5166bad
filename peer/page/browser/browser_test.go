package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// shots is the directory for the screenshots.
const shots = "../../../bin/page"

// chromium finds the browser, or says how to install it.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	t.Fatal("no Chromium: apt-get install chromium, or set CHROMIUM to where it is")
	return ""
}

type node struct {
	*peer.Node
	caches []*tier.Cache[string]
	http   *httptest.Server
}

// cluster starts three nodes with two namespaces each, and callers that read from them.
func cluster(t *testing.T) []*node {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	var nodes []*node
	var seed []string
	ctx, stop := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	for _, name := range []string{"catalog-1", "catalog-2", "catalog-3"} {
		p, err := peer.Start(t.Context(), peer.Config{Name: name, Join: seed, Logger: quiet, ClusterName: "shop",
			Gossip: peer.Gossip{ProbeInterval: 200 * time.Millisecond, ProbeTimeout: 80 * time.Millisecond, SuspicionMult: 2}})
		if err != nil {
			t.Fatal(err)
		}
		seed = []string{p.Addr()}
		n := &node{Node: p}
		for i, space := range []string{"price", "product"} {
			c, err := tier.New(tier.Config[string]{
				Cluster: p, Namespace: space, Logger: p.Logger(),
				Loader: func(ctx context.Context, f *tier.Fill[string]) (string, error) {
					for _, step := range []string{"postgres", "pricing"}[:2-i] {
						done := f.Step(step)
						time.Sleep(time.Duration(5+rand.IntN(20)) * time.Millisecond)
						done()
					}
					return strings.Repeat("x", 200), nil
				},
				Freshness: tier.Freshness{TTL: 3 * time.Second, StaleWhileRevalidate: 2 * time.Second, StaleIfError: time.Hour},
				Origin:    tier.Origin{Concurrency: 12 + 52*i, Timeout: 2 * time.Second},
			})
			if err != nil {
				t.Fatal(err)
			}
			n.caches = append(n.caches, c)
			for range 2 {
				callers.Go(func() {
					tick := time.NewTicker(4 * time.Millisecond)
					defer tick.Stop()
					zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.2, 1, 5000)
					for ctx.Err() == nil {
						_, _ = c.Get(ctx, fmt.Sprintf("sku-%d", zipf.Uint64()))
						select {
						case <-tick.C:
						case <-ctx.Done():
						}
					}
				})
			}
		}
		mux := http.NewServeMux()
		mux.Handle("/weir/", n.Handler())
		mux.Handle("/deep/er", http.StripPrefix("/deep/er", n.Handler()))
		mux.Handle("/deep/er/", http.StripPrefix("/deep/er", n.Handler()))
		n.http = httptest.NewServer(mux)
		nodes = append(nodes, n)
	}
	t.Cleanup(func() {
		stop()
		for _, n := range nodes {
			for _, c := range n.caches {
				_ = c.Close(context.Background())
			}
			_ = n.Close()
			n.http.CloseClientConnections()
			n.http.Close()
		}
		callers.Wait()
	})
	for _, n := range nodes {
		for n.View().Len() < len(nodes) {
			select {
			case <-n.ViewChanged():
			case <-t.Context().Done():
				t.Fatal("the cluster did not form")
			}
		}
	}
	return nodes
}

// open starts a browser and returns its context. A complaint of the browser fails the test unless it contains one of the
// expected texts.
func open(t *testing.T, expected ...string) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.WindowSize(1280, 1500))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancelAll := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	ctx, cancelTime := context.WithTimeout(ctx, 90*time.Second)
	var mu sync.Mutex // guards complaints
	var complaints []string
	complain := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		complaints = append(complaints, fmt.Sprintf(format, args...))
	}
	chromedp.ListenTarget(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			complain("exception: %v", e.ExceptionDetails)
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				for _, a := range e.Args {
					complain("console: %s", a.Value)
				}
			}
		case *cdplog.EventEntryAdded: // violations of the policy arrive here
			if e.Entry.Level == cdplog.LevelError || e.Entry.Level == cdplog.LevelWarning {
				complain("log: %s %s", e.Entry.Text, e.Entry.URL)
			}
		}
	})
	t.Cleanup(func() {
		cancelTime()
		cancel()
		cancelAll()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range complaints {
			if !slices.ContainsFunc(expected, func(text string) bool { return strings.Contains(c, text) }) {
				t.Errorf("the browser complains: %s", c)
			}
		}
	})
	if err := os.MkdirAll(shots, 0o755); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, cdplog.Enable())
	return ctx
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		var text string
		_ = chromedp.Run(ctx, chromedp.Text("body", &text))
		t.Fatalf("%v\nthe page says: %s", err, text)
	}
}

// waitFor waits until a JavaScript expression is true.
func waitFor(expression string) chromedp.Action {
	return chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(30*time.Second))
}

// saying returns an expression that is true when the element's text contains all the words.
func saying(selector string, words ...string) string {
	w, _ := json.Marshal(words)
	return fmt.Sprintf(`(() => { const e = document.querySelector(%q); return e && %s.every((w) => e.textContent.includes(w)); })()`, selector, w)
}

func shot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	var png []byte
	do(t, ctx, chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(filepath.Join(shots, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPage(t *testing.T) {
	nodes := cluster(t)
	ctx := open(t)
	do(t, ctx, chromedp.Navigate(nodes[0].http.URL+"/weir/"),
		waitFor(saying("#state-text", "3 of 3 members answer")),
		waitFor(saying("#members tbody", "catalog-1 (this one)", "catalog-2", "catalog-3", "alive")),
		waitFor(`document.querySelectorAll("#ring circle").length === 3`),
		waitFor(saying("[data-namespace=product]", "Fresh for 3s", "reaches the origin now", "postgres")),
		waitFor(saying("[data-namespace=price] .verdict", "margin of")),
		waitFor(`document.querySelectorAll("canvas").length === 6`),
		waitFor(saying("#events", "member joined", "catalog-3")),
		waitFor(`[...document.querySelectorAll(".legend")].every((l) => /[1-9]/.test(l.textContent))`))
	// Charts have something to show after a while.
	do(t, ctx, chromedp.Sleep(20*time.Second))
	shot(t, ctx, "light")
	var png []byte
	do(t, ctx, chromedp.EmulateViewport(1100, 1000), chromedp.Sleep(1500*time.Millisecond), chromedp.CaptureScreenshot(&png), chromedp.EmulateViewport(1280, 1500))
	if err := os.WriteFile(filepath.Join(shots, "readme.png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}), chromedp.Sleep(1500*time.Millisecond))
	shot(t, ctx, "dark")
	do(t, ctx, emulation.SetEmulatedMedia())

	// No part of the page is wider than a phone.
	do(t, ctx, chromedp.EmulateViewport(390, 1800, chromedp.EmulateMobile), chromedp.Sleep(1500*time.Millisecond),
		waitFor(`document.documentElement.scrollWidth <= 390`))
	var phone []byte
	do(t, ctx, chromedp.CaptureScreenshot(&phone))
	if err := os.WriteFile(filepath.Join(shots, "phone.png"), phone, 0o644); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, chromedp.EmulateViewport(1280, 1500))

	// The page notices and names a node that is gone.
	_ = nodes[2].Close()
	do(t, ctx,
		waitFor(saying("#state-text", "2 of 3 members answer")),
		waitFor(saying("#missing", "No answer from catalog-3", "lost since")),
		waitFor(`document.querySelectorAll("#ring circle").length === 2`),
		waitFor(saying("#events", "member lost")),
		waitFor(saying("#members tbody", "lost")))
	shot(t, ctx, "lost")
}

// TestKeyboard checks that everything is reachable and usable without a mouse.
func TestKeyboard(t *testing.T) {
	nodes := cluster(t)
	ctx := open(t)
	focused := func(id string) chromedp.Action {
		return waitFor(fmt.Sprintf(`document.activeElement.id === %q`, id))
	}
	do(t, ctx, chromedp.Navigate(nodes[1].http.URL+"/deep/er"), // redirects to where relative addresses work
		waitFor(`location.pathname === "/deep/er/"`),
		waitFor(saying("#state-text", "3 of 3")),
		chromedp.KeyEvent(kb.Tab), waitFor(`document.activeElement.className === "skip"`),
		chromedp.KeyEvent(kb.Tab), focused("pause"),
		chromedp.KeyEvent(kb.Enter), waitFor(saying("#state-text", "paused")), waitFor(saying("#pause", "Go on")),
		chromedp.KeyEvent(kb.Enter), waitFor(saying("#pause", "Pause")),
		chromedp.KeyEvent(kb.Tab), focused("theme"),
		chromedp.KeyEvent(kb.Enter), waitFor(`document.documentElement.dataset.theme === "light"`),
		chromedp.KeyEvent(kb.Enter), waitFor(`document.documentElement.dataset.theme === "dark"`),
		chromedp.Reload(), waitFor(`document.documentElement.dataset.theme === "dark"`), // remembered
		waitFor(saying("#state-text", "3 of 3")),
		chromedp.Focus("[data-namespace=price] summary", chromedp.ByQuery),
		chromedp.KeyEvent(kb.Enter), waitFor(`!document.querySelector("[data-namespace=price]").open`),
		chromedp.KeyEvent(kb.Enter), waitFor(`document.querySelector("[data-namespace=price]").open`))
}

// TestPolicy checks that the page's policy blocks inline scripts and other hosts. Without a policy in force, the test above
// would find nothing.
func TestPolicy(t *testing.T) {
	nodes := cluster(t)
	ctx := open(t, "Content Security Policy")
	var ran bool
	do(t, ctx, chromedp.Navigate(nodes[0].http.URL+"/weir/"), waitFor(saying("#state-text", "3 of 3")))
	resp, err := http.Get(nodes[0].http.URL + "/weir/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	policy := resp.Header.Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || !strings.Contains(policy, "default-src 'none'") {
		t.Error(policy)
	}
	do(t, ctx, chromedp.Evaluate(`(async () => { let blocked = 0;
		document.addEventListener("securitypolicyviolation", () => blocked++);
		const s = document.createElement("script"); s.textContent = "window.ran = true"; document.head.append(s);
		await fetch("http://127.0.0.2:1/").catch(() => {});
		await new Promise((f) => setTimeout(f, 300));
		return blocked === 2 && !window.ran; })()`, &ran, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if !ran {
		t.Error("the policy blocked nothing")
	}
}
