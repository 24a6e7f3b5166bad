package tier_test

import (
	"context"
	"fmt"
	"time"

	"github.com/weircache/weir/tier"
)

func Example() {
	ctx := context.Background()
	load := func(ctx context.Context, sku string) (string, error) {
		fmt.Println("asking the origin for", sku)
		return "a lamp", nil
	}
	products, err := tier.New(tier.Config[string]{
		Loader:    tier.ByKey(load),
		Freshness: tier.Freshness{TTL: time.Minute, StaleIfError: time.Hour},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer products.Close(ctx)
	for range 3 {
		name, err := products.Get(ctx, "sku-42")
		fmt.Println(name, err)
	}
	// Output:
	// asking the origin for sku-42
	// a lamp <nil>
	// a lamp <nil>
	// a lamp <nil>
}
