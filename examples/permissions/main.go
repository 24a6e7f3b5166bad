// Permissions answers whether a user may do something, from a cache that must not be wrong for long. A revoked right is
// gone everywhere when Revoke returns. A node that is cut off from the others asks the database each time instead of
// trusting its copies.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/tier"
)

// Grants are what a user may do.
type Grants struct {
	Roles   []string
	Actions []string
}

// Store stands for the database.
type Store struct {
	mu    sync.Mutex // guards the rest
	roles map[string][]string
	may   map[string][]string // by role
	reads int
}

func (s *Store) load(user string) (g Grants, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	roles, ok := s.roles[user]
	if !ok {
		return g, tier.ErrNotFound
	}
	g.Roles = slices.Clone(roles)
	for _, role := range roles {
		g.Actions = append(g.Actions, s.may[role]...)
	}
	return g, nil
}

// Checker checks permissions.
type Checker struct {
	store  *Store
	grants *tier.Cache[Grants]
}

// NewChecker returns a Checker; cluster may be nil. Close its cache.
func NewChecker(store *Store, cluster tier.Cluster) (*Checker, error) {
	grants, err := tier.New(tier.Config[Grants]{
		Cluster:   cluster,
		Namespace: "grants",
		Loader: func(_ context.Context, fill *tier.Fill[Grants]) (Grants, error) {
			done := fill.Step("database")
			g, err := store.load(fill.Key)
			done(err)
			for _, role := range g.Roles {
				fill.Tag("role:" + role) // so that a change of the role affects everyone with that role
			}
			return g, err
		},
		// No stale answers, not even while the database is down.
		Freshness:    tier.Freshness{TTL: time.Minute, NegativeTTL: 5 * time.Second, NearTTL: 5 * time.Second},
		WhenIsolated: tier.Bypass,
	})
	return &Checker{store, grants}, err
}

// May reports whether user may do action. An unknown user may do nothing.
func (c *Checker) May(ctx context.Context, user, action string) (bool, error) {
	g, err := c.grants.Get(ctx, user)
	if errors.Is(err, tier.ErrNotFound) {
		return false, nil
	}
	return slices.Contains(g.Actions, action), err
}

// Revoke takes an action from a role. Once it returns nil, no request is allowed by an older answer.
func (c *Checker) Revoke(ctx context.Context, role, action string) error {
	c.store.mu.Lock()
	c.store.may[role] = slices.DeleteFunc(c.store.may[role], func(a string) bool { return a == action })
	c.store.mu.Unlock()
	err := c.grants.InvalidateTag(ctx, "role:"+role)
	var unreached *tier.InvalidateError
	if errors.As(err, &unreached) {
		return fmt.Errorf("not in force on %v before %v: %w", unreached.Unreached, unreached.CleanBy, err)
	}
	return err
}

func run(ctx context.Context) error {
	store := &Store{
		roles: map[string][]string{"ada": {"editor"}, "bob": {"editor", "admin"}},
		may:   map[string][]string{"editor": {"write"}, "admin": {"delete"}},
	}
	c, err := NewChecker(store, nil)
	if err != nil {
		return err
	}
	defer c.grants.Close(ctx)
	show := func() error {
		for _, user := range []string{"ada", "bob", "eve"} {
			ok, err := c.May(ctx, user, "write")
			if err != nil {
				return err
			}
			fmt.Printf("%s may write: %v\n", user, ok)
		}
		return nil
	}
	for range 3 {
		if err := show(); err != nil {
			return err
		}
	}
	fmt.Println("database reads:", store.reads)
	if err := c.Revoke(ctx, "editor", "write"); err != nil {
		return err
	}
	fmt.Println("editors may no longer write")
	return show()
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
