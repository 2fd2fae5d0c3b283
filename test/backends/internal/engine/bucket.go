package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const region = "us-east-1"

// CreateBucket makes a bucket, or does nothing if it exists.
func (e *Engine) CreateBucket(ctx context.Context, name string) error {
	target := url.URL{Scheme: "http", Host: VirtualDomain, Path: "/" + name}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, target.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("create bucket %q: %w", name, err)
	}
	empty := sha256.Sum256(nil)
	hash := hex.EncodeToString(empty[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	creds := aws.Credentials{AccessKeyID: e.opt.AccessKey, SecretAccessKey: e.opt.SecretKey}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(ctx, creds, req, hash, "s3", region, time.Now()); err != nil {
		return fmt.Errorf("create bucket %q: %w", name, err)
	}
	tr := e.Transport()
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("create bucket %q: %w", name, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	exists := resp.StatusCode == http.StatusConflict && strings.Contains(string(body), "BucketAlready")
	if resp.StatusCode/100 == 2 || exists {
		return nil
	}
	return fmt.Errorf("create bucket %q: the engine answered %s: %s", name, resp.Status, body)
}
