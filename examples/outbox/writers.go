package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	users  = 400 // in the table from the beginning, permanently
	guests = 40  // temporary users, with the numbers after those
	orgs   = 8
)

var visibilities = []string{"everybody", "friends", "nobody"}

// A writer is a program that writes to the database and does not know about the cache. It returns how many rows it has
// changed.
type writer struct {
	name string
	run  func(ctx context.Context, p *postgres, rows int, dice *rand.Rand) (int, error)
}

var writers = []writer{
	{"settings page, a row at a time", settingsPage},
	{"nightly job, transactions that stay open, some rolled back", nightlyJob},
	{"import, COPY and upsert, guests who come and go", importer},
	{"psql session", psqlSession},
}

// settingsPage changes one row at a time.
func settingsPage(ctx context.Context, p *postgres, rows int, dice *rand.Rand) (n int, err error) {
	return connected(ctx, p, func(conn *pgx.Conn) (int, error) {
		for ; n < rows; n++ {
			_, err := conn.Exec(ctx, "update privacy set visibility = $2 where user_id = $1", 1+dice.IntN(users), visibilities[dice.IntN(3)])
			if err != nil {
				return n, err
			}
		}
		return n, nil
	})
}

// nightlyJob changes many rows in a transaction. It takes its time before it commits or rolls back.
func nightlyJob(ctx context.Context, p *postgres, rows int, dice *rand.Rand) (n int, err error) {
	return connected(ctx, p, func(conn *pgx.Conn) (int, error) {
		for n < rows {
			tx, err := conn.Begin(ctx)
			if err != nil {
				return n, err
			}
			from := 1 + dice.IntN(users-20)
			tag, err := tx.Exec(ctx, `update privacy set visibility = $3 where user_id in
				(select user_id from privacy where user_id between $1 and $2 order by user_id for update)`, from, from+10+dice.IntN(10), visibilities[dice.IntN(3)])
			if err != nil {
				return n, errors.Join(err, tx.Rollback(ctx))
			}
			pause(ctx, time.Duration(dice.IntN(30))*time.Millisecond)
			if dice.IntN(4) == 0 {
				err = tx.Rollback(ctx)
			} else if err = tx.Commit(ctx); err == nil {
				n += int(tag.RowsAffected())
			}
			if err != nil {
				return n, err
			}
		}
		return n, nil
	})
}

// importer copies rows into a table of its own and then all at once into the real one. It also adds and removes guests.
func importer(ctx context.Context, p *postgres, rows int, dice *rand.Rand) (n int, err error) {
	return connected(ctx, p, func(conn *pgx.Conn) (int, error) {
		if _, err := conn.Exec(ctx, "create temp table incoming (user_id int primary key, org int, visibility text) on commit delete rows"); err != nil {
			return 0, err
		}
		for n < rows {
			err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				var in [][]any
				for _, i := range dice.Perm(users)[:10] {
					in = append(in, []any{1 + i, 1 + i%orgs, visibilities[dice.IntN(3)]})
				}
				for i := range guests {
					if dice.IntN(4) == 0 {
						in = append(in, []any{users + 1 + i, 1 + dice.IntN(orgs), visibilities[dice.IntN(3)]})
					}
				}
				if _, err := tx.CopyFrom(ctx, pgx.Identifier{"incoming"}, []string{"user_id", "org", "visibility"}, pgx.CopyFromRows(in)); err != nil {
					return err
				}
				tag, err := tx.Exec(ctx, `insert into privacy (user_id, org, visibility) select * from incoming order by user_id
					on conflict (user_id) do update set visibility = excluded.visibility, org = excluded.org`)
				if err == nil {
					n += int(tag.RowsAffected())
				}
				return err
			})
			if err != nil {
				return n, err
			}
			from := users + 1 + dice.IntN(guests)
			tag, err := conn.Exec(ctx, "delete from privacy where user_id between $1 and $2", from, from+5)
			if err != nil {
				return n, err
			}
			n += int(tag.RowsAffected())
		}
		return n, nil
	})
}

// psqlSession stands for the administrators: psql with typed statements. Some change an organisation's policy.
func psqlSession(ctx context.Context, p *postgres, rows int, dice *rand.Rand) (n int, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
		"-p", fmt.Sprint(p.port), "-U", "outbox", "postgres")
	cmd.Env = append(os.Environ(), "PGPASSWORD="+p.password)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	typed := bufio.NewWriter(in)
	for ; n < rows; n++ {
		if n%20 == 19 {
			fmt.Fprintf(typed, "update org set policy = 'policy %d' where id = %d;\n", n, 1+dice.IntN(orgs))
		} else {
			fmt.Fprintf(typed, "update privacy set visibility = '%s' where user_id = %d;\n", visibilities[dice.IntN(3)], 1+dice.IntN(users))
		}
	}
	err = errors.Join(typed.Flush(), in.Close(), cmd.Wait())
	if err != nil {
		return n, fmt.Errorf("psql: %w: %s", err, said.String())
	}
	return n, nil
}

// connected runs f with a new connection.
func connected(ctx context.Context, p *postgres, f func(*pgx.Conn) (int, error)) (int, error) {
	conn, err := pgx.Connect(ctx, p.url())
	if err != nil {
		return 0, err
	}
	n, err := f(conn)
	return n, errors.Join(err, conn.Close(context.Background()))
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
