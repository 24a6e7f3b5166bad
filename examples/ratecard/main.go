// Ratecard caches a price list that a partner's HTTP API serves. The list is large and changes rarely, and the API
// reports whether it has changed: a refill sends the ETag of the previous copy, and "304 Not Modified" keeps that copy
// for another hour. If the API is down, the last list stays in use for a day.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/weircache/weir/tier"
)

// Card is a price list.
type Card struct {
	ETag  string
	Rates map[string]float64 // by currency
}

// newCards returns a cache of the cards of the API at base. Close it.
func newCards(base string, client *http.Client) (*tier.Cache[Card], error) {
	return tier.New(tier.Config[Card]{
		Namespace: "ratecard",
		Loader: func(ctx context.Context, fill *tier.Fill[Card]) (Card, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/cards/"+fill.Key, nil)
			if err != nil {
				return Card{}, err
			}
			if old, ok := fill.Previous(); ok {
				req.Header.Set("If-None-Match", old.ETag)
			}
			done := fill.Step("partner")
			resp, err := client.Do(req)
			done(err)
			if err != nil {
				return Card{}, tier.Retryable(err)
			}
			defer resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusOK:
				card := Card{ETag: resp.Header.Get("ETag")}
				return card, json.NewDecoder(resp.Body).Decode(&card.Rates)
			case http.StatusNotModified:
				return fill.KeepPrevious()
			case http.StatusNotFound:
				return Card{}, tier.ErrNotFound
			}
			return Card{}, fmt.Errorf("the partner answers %s", resp.Status)
		},
		Freshness: tier.Freshness{TTL: time.Hour, StaleIfError: 24 * time.Hour},
	})
}

// partner is the API. It counts how often its card was requested and how often it was sent whole.
type partner struct{ asked, sent int }

func (p *partner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked++
	w.Header().Set("ETag", `"v1"`)
	if r.Header.Get("If-None-Match") == `"v1"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	p.sent++
	_, _ = w.Write([]byte(`{"EUR": 1, "CHF": 0.95}`))
}

func run(ctx context.Context) error {
	api := new(partner)
	server := httptest.NewServer(api)
	defer server.Close()
	cards, err := newCards(server.URL, server.Client())
	if err != nil {
		return err
	}
	defer cards.Close(ctx)
	for range 3 {
		card, err := cards.Refresh(ctx, "2026") // as if an hour had passed
		if err != nil {
			return err
		}
		fmt.Println("CHF", card.Rates["CHF"])
	}
	fmt.Printf("asked %d times, sent %d times\n", api.asked, api.sent)
	return nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
