// Command provision makes the servers of tests that need more than Go: HDFS, Azure and
// SQS. It leaves them in the user's cache and writes, for the shell, the environment
// variables that name them, or say why one cannot be had. It makes nothing that is there
// already, and starts none of them.
//
//	go run ./test/provision [-env FILE] [-skipped FILE] [-lock]
//
// It fails if a backend that is required cannot be had; see package child.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-io/freshet/test/azuretest"
	"github.com/freshet-io/freshet/test/child"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/test/sqstest"
)

type backend struct {
	recipe    child.Recipe
	provision func(context.Context) (string, error)
}

func main() {
	env := flag.String("env", "", "`file` to write the environment variables to")
	skipped := flag.String("skipped", "", "`file` to write to what `make test` says of the backends that it skips")
	lock := flag.Bool("lock", false, "write the lock file of HDFS anew from its pom.xml, and nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	if *lock {
		err = hdfstest.Lock(ctx)
	} else {
		err = run(ctx, os.Stdout, *env, *skipped)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, envFile, skippedFile string) error {
	var env strings.Builder
	var skipped []string
	var failures []error
	for _, b := range []backend{
		{hdfstest.Recipe, hdfstest.Provision},
		{azuretest.Recipe, azuretest.Provision},
		{sqstest.Recipe, sqstest.Provision},
	} {
		name, start := b.recipe.Backend, time.Now()
		dir, err := b.provision(ctx)
		var un *child.UnavailableError
		switch {
		case err == nil:
			fmt.Fprintf(&env, "%s=%s\n", b.recipe.DirEnv(), quote(dir))
			fmt.Fprintf(out, "%-6s %6.1f s  %s\n", name, time.Since(start).Seconds(), dir)
		case errors.As(err, &un) && !child.Required(name):
			fmt.Fprintf(&env, "%s=%s\n", b.recipe.ReasonEnv(), quote(un.Reason))
			fmt.Fprintf(out, "SKIP %v\n", err)
			skipped = append(skipped, fmt.Sprintf("%s (%s)", name, un.Reason))
		default:
			failures = append(failures, fmt.Errorf("backend %w", err))
		}
	}
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("%w\nrequired by CI=true or %s; %s=none makes do without", err, child.RequireEnv, child.RequireEnv)
	}
	summary := ""
	if skipped != nil {
		summary = "SKIPPED BACKENDS: " + strings.Join(skipped, ", ") + "\n"
	}
	return errors.Join(write(envFile, env.String()), write(skippedFile, summary))
}

func write(path, content string) error {
	if path == "" {
		return nil
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// quote makes one word for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
