package peer_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/weircache/weir/peer"
)

// Two nodes of one cluster find each other.
func Example() {
	ctx := context.Background()
	quiet := slog.New(slog.DiscardHandler)

	a, err := peer.Start(ctx, peer.Config{Name: "catalog-1", Logger: quiet})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := peer.Start(ctx, peer.Config{Name: "catalog-2", Join: []string{a.Addr()}, Logger: quiet})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Leave(ctx)

	for _, m := range b.View().Members() {
		fmt.Println(m.Name)
	}
	// Output:
	// catalog-1
	// catalog-2
}
