package browser

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/weircache/weir/peer"
)

// document returns a cluster of one member whose counters are at n.
func document(n int) string {
	return fmt.Sprintf(`{"schema":1,"by":"a","at":%q,"missing":[],"total":{},"members":[{"name":"a","rtt_seconds":0,"stats":{
		"schema":1,"node":{"name":"a","cluster":"c","incarnation":"1","ready":true,"version":"v1.2.3"},"view":{"fingerprint":"f","members":[{"name":"a","state":"alive","share":1}]},
		"connections":[],"events":[{"at":"2026-01-02T03:04:05Z","name":"member_lost","level":"WARN","node":"a","member":"<b>","text":"<img src=x onerror=alert(1)>"}],
		"namespaces":{"product":{"contract":"Fresh for <i>1m</i>.","near":%d,"owned":0,"fill":0,"errors":0,"loads":%d,"load_seconds":1,"loads_by_cause":{"cold":%d},"loads_by_result":{"ok":%d},
			"governor":{"share":10,"in_use":1,"waiting":0,"breaker":"open"},
			"ages":{"near":{"p50_seconds":0.5,"p99_seconds":1.5,"max_seconds":2.5}},
			"projection":{"reads_a_second":1000,"loads_a_second":500,"capacity":100,"margin":0.2,"keys":300,"seconds_to_warm":3,"hottest":[{"key":"sku-1","hash":"7","reads_a_second":50,"seconds_a_load":0.1,"busy":5},{"hash":"8","reads_a_second":1,"seconds_a_load":0.1,"busy":0.1}]}
		}}}}]}`, time.Now().UTC().Format(time.RFC3339Nano), 100*n, n, n, n)
}

// TestFields checks that the page shows a ledger's projection, ages and hottest keys if a member has them, that it does not
// interpret text in the documents as markup, and that it polls when the stream is missing.
func TestFields(t *testing.T) {
	p, err := peer.Start(t.Context(), peer.Config{Name: "a", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	asked := 0
	mux := http.NewServeMux()
	mux.Handle("/weir/", p.Handler())
	mux.HandleFunc("/weir/events", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no streams here", http.StatusNotImplemented)
	})
	mux.HandleFunc("/weir/stats", func(w http.ResponseWriter, r *http.Request) { // requested one after the other
		asked++
		_, _ = fmt.Fprint(w, document(asked))
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	ctx := open(t, "501")
	do(t, ctx, chromedp.Navigate(s.URL+"/weir/"),
		waitFor(saying("#state-text", "1 of 1", "polling")),
		waitFor(saying(".verdict", "The origin's breaker is open", "would be asked 500 times", "it bears 100", "margin of 0.2", "80.0 %", "300 keys", "3 s")),
		waitFor(saying(".bars", "with empty caches")),
		waitFor(saying(".tables", "Ages served", "near, a", "500 ms", "1.5 s", "What a loss would cost most", "sku-1", "#8", "5 s/s")),
		waitFor(saying(".tiles", "Breaker", "open")),
		waitFor(saying(".contract", "<i>1m</i>")),
		waitFor(saying("#events", "<img")),
		waitFor(`!document.querySelector("#events img, .contract i")`))
}
