package tier_test

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/weircache/weir/tier"
)

// changes is a feed in memory, in which a program records its writes.
type changes struct {
	events chan tier.Event // closed when no event follows
	acked  chan uint64
}

func (f changes) Bounds(context.Context) (tier.FeedBounds, error) {
	return tier.FeedBounds{Consecutive: true}, nil
}

func (f changes) Next(ctx context.Context, after uint64) (tier.FeedBatch, error) {
	select {
	case e, ok := <-f.events:
		if !ok {
			return tier.FeedBatch{}, io.EOF
		}
		return tier.FeedBatch{Events: []tier.Event{e}}, nil
	case <-ctx.Done():
		return tier.FeedBatch{}, ctx.Err()
	}
}

func (f changes) Ack(_ context.Context, upTo tier.FeedPosition) error {
	f.acked <- upTo.Position
	return nil
}

func ExampleCache_Follow() {
	ctx := context.Background()
	price := "9.00"
	prices, err := tier.New(tier.Config[string]{
		Loader:    tier.ByKey(func(context.Context, string) (string, error) { return price, nil }),
		Freshness: tier.Freshness{TTL: time.Hour},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer prices.Close(ctx)
	feed := changes{events: make(chan tier.Event), acked: make(chan uint64, 1)}
	ended := make(chan error)
	go func() { ended <- prices.Follow(ctx, feed) }()

	fmt.Println(prices.Get(ctx, "sku-42"))
	price = "7.50" // a program writes and tells the feed; it knows nothing of the cache
	feed.events <- tier.Event{Position: 1, Change: tier.Change{Keys: []string{"sku-42"}}}
	fmt.Println("applied everywhere:", <-feed.acked)
	fmt.Println(prices.Get(ctx, "sku-42"))

	close(feed.events)
	fmt.Println(<-ended)
	// Output:
	// 9.00 <nil>
	// applied everywhere: 1
	// 7.50 <nil>
	// <nil>
}
