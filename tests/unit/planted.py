"""Secrets made up from a seed, and texts that only look like some. No real key; prefixes are put together when it runs."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import string
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

ALPHABETS = {
    "A": string.ascii_letters + string.digits, "U": string.ascii_uppercase + "234567", "h": "0123456789abcdef",
    "H": "0123456789ABCDEF", "D": string.digits, "w": string.ascii_letters + string.digits + "-_",
    "b": string.ascii_letters + string.digits + "+/", "l": string.ascii_lowercase + string.digits,
}
# {A36}: 36 letters and digits; | falls out
SHAPES = {
    "aws": "AK|IA{U16}", "github": "gh|p_{A36}", "github-server": "gh|s_{A36}", "github-fine": "github|_pat_{A22}_{A59}",
    "gitlab": "gl|pat-{w20}", "gitlab-runner": "gl|rt-{w20}", "openai": "s|k-{A20}T3Blb|kFJ{A20}",
    "openai-project": "s|k-proj-{w120}", "anthropic": "s|k-ant-api03-{w93}AA", "openrouter": "s|k-or-v1-{h64}",
    "xai": "x|ai-{A80}", "google": "AI|za{w35}", "google-oauth": "GOC|SPX-{w28}", "google-access": "ya|29.{w120}",
    "huggingface": "h|f_{A34}", "replicate": "r|8_{A37}", "groq": "gs|k_{A52}", "perplexity": "pp|lx-{A48}",
    "slack-bot": "xo|xb-{D12}-{D12}-{A24}", "slack-app": "xa|pp-1-A{D10}-{D13}-{h64}",
    "slack-hook": "https://hooks.sl|ack.com/services/T{U8}/B{U10}/{A24}", "stripe": "s|k_live_{A24}",
    "stripe-hook": "wh|sec_{A32}", "npm": "np|m_{A36}", "pypi": "py|pi-AgEIcHlwaS5vcmc{w130}", "sendgrid": "S|G.{w22}.{w43}",
    "mailgun": "ke|y-{h32}", "mailchimp": "{h32}-us|12", "twilio": "S|K{h32}", "telegram": "{D10}:A|A{w33}",
    "discord": "MT|{A24}.{w6}.{w38}", "discord-hook": "https://disc|ord.com/api/webhooks/{D18}/{w68}",
    "digitalocean": "do|p_v1_{h64}", "shopify": "shp|at_{h32}", "linear": "lin|_api_{A40}", "notion": "nt|n_{A46}",
    "vault": "hv|s.{w24}", "terraform": "{A14}.atl|asv1.{w67}", "docker": "dckr|_pat_{w27}", "age": "AGE-SEC|RET-KEY-1{U58}",
    "grafana": "gl|sa_{A32}_{h8}", "databricks": "da|pi{h32}", "consolidator": "o|c_{A12}_{w43}",
    "atlassian": "ATA|TT3xFfGF0{w60}", "doppler": "dp|.pt.{A43}", "tailscale": "tsk|ey-auth-{A12}-{A32}",
    "azure-client": "{A3}8|Q~{w34}", "resend": "r|e_{A8}_{A24}", "figma": "fi|gd_{w40}", "postman": "PM|AK-{h24}-{h34}",
    "artifactory": "A|P6{A24}", "softlayer": "https://api.soft|layer.com/soap/v3/{l64}", "square": "sq0|csp-{w43}",
}
VALUES = {  # that nothing but a name tells
    "random": "{A32}", "hex": "{h40}", "base64": "{b43}=", "long": "{A64}", "human": "Tr0ub{A2}dor-{D2}", "weak": "hunter{D3}x",
    "uuid": "{h8}-{h4}-{h4}-{h4}-{h12}",
}
AROUND = (
    "{}", "Here it is: {} - use it for the deployment, please.", "ERROR 2026-03-01T10:00:00Z 401 for {} after 3 tries",
    '+    client = Client("{}", region="eu")', '{{"command": "deploy --with {} --region eu", "timeout": 10}}', "`{}`",
    "$ cat key.txt\n{}\n$ ls\nREADME.md", "  12  SETTING={}  # the new one", "echo {} | deploy login --stdin", "<code>{}</code>",
    '"content": "the key:\\n{}\\nand more"', "\x1b[1;32m{}\x1b[0m", '"content": "A=1\\nSETTING={}\\nB=2"',
)
NAMED = (
    "DB_PASSWORD={}", "export SERVICE_TOKEN='{}'", 'config = {{"api_key": "{}", "region": "eu"}}', "  client_secret: {}",
    '{{"arguments": "{{\\"auth_token\\": \\"{}\\", \\"n\\": 1}}"}}', '-    secret_key = "{}"',
    "$ mysql --user=app --password={} shop", "docker run -e POSTGRES_PASSWORD={} -p 5432:5432 postgres:16", "> x-api-key: {}",
    "the password for the staging box is {}.", "spring.datasource.password={}",
    "connecting to postgres://app:{}@db.internal:5432/shop ...", "const apiKey = '{}';",
    "machine api.example.com login bot password {}", "curl -H 'Authorization: Bearer {}' https://api.example.com",
    "PGPASSWORD={} psql", "Server=db;User Id=sa;Password={};Encrypt=true", "<password>{}</password>",
    "os.environ['API_KEY'] = '{}'", "//registry.npmjs.org/:_authToken={}", "CREATE USER app IDENTIFIED BY '{}';",
    "$ cat .env\nDEBUG=1\nJWT_SECRET={}\nPORT=80", '"content": "DEBUG=1\\nJWT_SECRET={}\\nPORT=80"',
    "sshpass -p {} ssh bot@host", "curl -u bot:{} https://api.example.com",
    "curl --header 'PRIVATE-TOKEN: {}' https://git.example.com", "'password' => '{}',", "My API key is {}, do not lose it.",
    "    12\tACCESS_TOKEN={}", "deploy --token {} --env prod", "+  token: '{}'", "password: str = \"{}\"",
    "redis://:{}@cache:6379/0", "Set-Cookie: sessionid=x{}; Path=/; HttpOnly", "AccountName=shop;SharedSecret={}",
    "headers.set('X-Auth-Token', '{}')", "helm upgrade app --set auth.password={} ./chart", "password={}&grant_type=password",
    "$env:API_TOKEN = \"{}\"", 'if ("{}" == my_password) {{', 'set_password "{}";',
)
BASIC = ("postgres://", "redis://", "grant_type", "curl -u", "Authorization")


@dataclass(frozen=True, slots=True)
class Planted:
    kind: str
    text: str
    secret: str  # several lines: none of them may stay


def made(rng: random.Random, pattern: str) -> str:
    def piece(match: re.Match[str]) -> str:
        return "".join(rng.choices(ALPHABETS[match[1]], k=int(match[2])))

    return re.sub(r"\{([A-Za-z])(\d+)\}", piece, pattern.replace("|", ""))


def planted(seed: int) -> Iterator[Planted]:
    """More than 200, of more than 60 kinds."""
    rng = random.Random(seed)
    for kind, pattern in SHAPES.items():
        for around in rng.sample(AROUND, 3):
            secret = made(rng, pattern)
            yield Planted(kind, around.format(secret), secret)
    for around in NAMED:
        for kind in rng.sample(sorted(VALUES), 3):
            secret = made(rng, VALUES[kind])
            if around.startswith(BASIC) or "://" in around:
                secret = secret.replace("/", "x")
            yield Planted(f"named {kind}", around.format(secret), secret)
    for _ in range(3):
        yield from _blocks(rng)


def _blocks(rng: random.Random) -> Iterator[Planted]:
    lines = [made(rng, "{b64}") for _ in range(12)]
    body = "\n".join(lines)
    for kind in ("RSA ", "OPENSSH ", "EC ", ""):
        key = f"-----BEGIN {kind}PRIV" + f"ATE KEY-----\n{body}\n-----END {kind}PRIV" + "ATE KEY-----"
        yield Planted(f"{kind or 'PKCS8 '}private key", f"$ cat id\n{key}\n$", body)
        yield Planted("private key in JSON", json.dumps({"private_key": key, "client_email": "bot@example.com"}), body)
        yield Planted("private key, cut", f"$ cat id\n{key[:600]}", "\n".join(lines[:8]))
    pgp = f"-----BEGIN PGP PRIV{'ATE KEY'} BLOCK-----\n\n{body}\n=aB3d\n-----END PGP PRIV{'ATE KEY'} BLOCK-----"
    yield Planted("pgp", pgp, body)
    encoded = base64.b64encode(f"-----BEGIN PRIV{'ATE KEY'}-----\n{body}".encode()).decode()
    yield Planted("kubeconfig", f"users:\n- user:\n    client-key-data: {encoded}\n", encoded)
    head, claims = ({"alg": "HS256", "typ": "JWT"}, {"sub": made(rng, "{D10}"), "iat": 1516239022})
    jwt = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, claims))
    jwt += "." + made(rng, "{w43}")
    yield Planted("jwt", f"set-cookie: auth={jwt}; Secure", jwt)
    yield Planted("jwt", f'"token_for_you": "{jwt}"', jwt)
    basic = base64.b64encode(made(rng, "bot:{A20}").encode()).decode()
    yield Planted("basic", f"> Authorization: Basic {basic}", basic)
    yield Planted("docker login", f'{{"auths": {{"registry.example.com": {{"auth": "{basic}"}}}}}}', basic)
    secret = made(rng, "{b40}")
    yield Planted("aws secret", f"aws_secret_access_key = {secret}", secret)
    yield Planted("aws secret", f'AWS_SECRET_ACCESS_KEY="{secret}"', secret)
    key = made(rng, "{b86}==")
    yield Planted("azure", f"DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={key};EndpointSuffix=core", key)
    again = made(rng, "{A28}")
    yield Planted("echo", f"$ export API_TOKEN={again}\n$ ./deploy.sh\nusing {again} for eu\ndone", again)


def harmless(seed: int) -> Iterator[str]:
    """More than 500 texts without a secret."""
    rng = random.Random(seed)
    for form in FORMS:
        for _ in range(6):
            yield made(rng, form)
    yield from FIXED
    for number in range(20):
        digest = hashlib.sha512(made(rng, "{A9}").encode()).digest()
        yield f'      "integrity": "sha512-{base64.b64encode(digest).decode()}",'
        yield f"trace {uuid.UUID(int=rng.getrandbits(128))} took {number} ms"


FORMS = (
    "commit {h40}", "index {h7}..{h7} 100644", "HEAD is now at {h7} Fix the token counter", "Merge: {h7} {h7}",
    "image@sha256:{h64}", '    "sha256": "{h64}",', "    --hash=sha256:{h64} \\", "checksum = \"{h64}\"",
    'resolved "https://registry.example.com/a/-/a-{D1}.{D1}.tgz#{h40}"', "session_id: {h8}-{h4}-{h4}-{h4}-{h12}",
    '{"type":"user","sessionId":"{h8}-{h4}-{h4}-{h4}-{h12}","uuid":"{h8}-{h4}-{h4}-{h4}-{h12}"}',
    "traceparent: 00-{h32}-{h16}-01", "request id req_{A24} failed", '"id": "toolu_{A24}", "type": "tool_use"',
    '"id": "call_{A24}"', '"id": "msg_{A24}", "model": "small"', '"id": "chatcmpl-{A29}"',
    "data:image/png;base64,iVBORw0KGgo{b120}", '"thinking_signature": "{b200}=="', "ETag: \"{h32}\"",
    "color: #{h6}; background: #{h3};", "version {D1}.{D2}.{D1}-rc.{D1}+build.{h7}", "primary_key = \"{A20}\"",
    "cache_key: {h32}", "key: {A12}", "max_tokens={D4}", '"prompt_tokens": {D4}, "completion_tokens": {D3}',
    "token budget: {D4}", "tokens used: {D5}", "total_tokens: {D6}", "token_count = {D4}", "Total tokens: {D3},{D3}",
    "task-{D4}-{l6}-wrapper", "<div class=\"sk-fading-circle sk-circle{D1} sk-loading-wrapper-item\">",
    "disk-{D3}-risk-{D3}-analysis", "/tmp/pytest-of-root/pytest-{D2}/test_password_reset0/{l8}.json",
    "https://example.com/reset?step={D1}&lang=en", "function a{D1}(e,t){return e.token=t.token,e.n={D3}}var b={D2};", "0x{h16}",
    "{H2}:{H2}:{H2}:{H2}:{H2}:{H2}", "{D4}-{D2}-{D2}T{D2}:{D2}:{D2}Z", "SHA256:{b43} bot@host (ED25519)",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{b43} bot@host", "next_page_token: \"{A16}\"", "nonce=\"{b22}==\"",
    "\"pageToken\": \"{A24}\"", "build {D6} of job-{h8} passed: {D4}/{D4}", "pass: {D4}/{D4}, fail: 0", "pid {D5}, port {D4}",
    "cwd=/work/{l6}/{l8}", "PWD=/home/{l8}/work", "x-request-id: {h32}", "\"etag\": \"W/{h24}\"",
    "s3://bucket/{h2}/{h38}/part-{D5}.parquet", "password_hash: {h64}", "GET /v1/banks/{l8}/memories?since={D10} 200 {D2}ms",
    "node_modules/.pnpm/a@{D1}.{D1}.{D1}_{h8}/node_modules/a", "blob {h40} {D5}", "secret_name: {l8}-credentials",
    "token_type={l6}", "public_key: MCowBQYDK2VwAyEA{b43}=", "-----BEGIN CERTIFICATE-----\\nMIID{b60}",
    "certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t{b80}", "AWS_REGION=eu-west-{D1} AWS_PROFILE={l6}",
    "ami-{h17} sg-{h17} vpc-{h17}",
)
FIXED = (
    "api_key = YOUR_API_KEY", 'api_key="<your-api-key>"', "API_KEY=your-api-key-here", "OPENAI_API_KEY=sk-...",
    "export TOKEN=${TOKEN}", "password = get_password()", "password: ${{ secrets.DB_PASSWORD }}", 'key = os.environ["API_KEY"]',
    "token = os.getenv('AUTH_TOKEN')", "const token = process.env.AUTH_TOKEN;", "the password field is required",
    "The password is wrong.", "the password is hashed with argon2", "Password must be at least 8 characters.",
    "password=changeme", "DB_PASSWORD=changeme", 'password: "changeme"', "token = tokens[0]",
    "def login(user: str, password: str) -> Token:", "password: Optional[str] = None", "if password == confirm_password:",
    "secret santa is on Friday", "Secret: the cake is in the fridge.", "a JWT has three parts",
    "JWT: header, payload, signature", "the token is expired", "the token expires in 3600 seconds", "tokenizer: cl100k_base",
    "TOKENIZERS_PARALLELISM=false", "self.token = token", "token=token, secret=secret", "client_secret=settings.client_secret",
    "api_key: str | None = None", "api_key: SecretStr | None = None", "password=request.form['password']",
    "parser.add_argument('--password', required=True)", "gh secret set API_KEY", "kubectl get secret db-credentials -o yaml",
    "secretKeyRef:\n  name: db\n  key: password", "secretName: db-credentials",
    "POSTGRES_PASSWORD_FILE=/run/secrets/db_password", "password: !vault db/password", "api_key: {{ api_key }}",
    "token: <token>", "pass: true", "12 passed, 1 failed", "compass: north-east-12", "bypass=enabled_v2",
    'placeholder="Enter your password"', '<input type="password" name="password">', "postgres://user:password@localhost:5432/db",
    "postgres://postgres:postgres@localhost/test", "https://user:${TOKEN}@github.com/a/b.git", "git@github.com:owner/repo.git",
    "http://127.0.0.1:8080/path@2x.png", "Authorization: Bearer $TOKEN", "Authorization: Bearer <token>",
    'headers = {"Authorization": f"Bearer {token}"}', "bearer of bad news", "basic authentication is enabled",
    "Basic configuration follows", "raise ValueError('no API key: set OPENAI_API_KEY')", "the api key is missing",
    "an access token is needed", "keyboard-interactive", "monkey: banana", "passwords are never stored",
    "passphrase for key '/home/a/.ssh/id_ed25519':", "Enter passphrase (empty for no passphrase):", "password=None",
    'password=""', "password: ********", "token=xxxxxxxxxxxxxxxx", "API_KEY=test", "secret=dummy", 'api_key="fake-api-key"',
    "TOKEN=example-token", 'if line.startswith("-----BEGIN PRIVATE KEY-----"):', "private key: see ~/.ssh/id_ed25519",
    "session=requests.Session()", "auth=HTTPBasicAuth(user, password)", "with pytest.raises(AuthError, match='invalid token'):",
    "test_password_is_masked PASSED", "feat(auth): rotate refresh tokens", "# token: one of a text's pieces",
    "token ids: [9906, 1917, 0]", "max_new_tokens: 512", "eos_token_id: 100257", "eos_token: <|endoftext|>",
    "pad_token: '[PAD]'", "special_tokens_map.json", "await bank.retain('My password was reset yesterday.', source='s')",
    "password reset link sent", "secret = generate_secret(32)", "pwd: /work/main", "the pin is on the map", "a pin: round",
    "credentials: include", "credential: same-origin", "Access-Control-Allow-Credentials: true", "token := lexer.Next()",
    "for token in tokens: yield token", "type TokenResponse = { token: string; expires: number }", "secret: z.string().min(8)",
    "password: z.string().min(8)", "'password' => 'required|min:8'", '"password": {"type": "string"}',
    "password varchar(255) not null", "[redacted:password#1a2b]", "password=[redacted:password#1a2b]",
    "cookie: the user accepted", "csrf_token()", "{% csrf_token %}", "sid=12", "mysql -p -u root shop", "ssh -p 2222 host",
    "docker login -u bot --password-stdin", "curl -u \"$USER:$PASS\" https://example.com",
    "npm config set //registry.npmjs.org/:_authToken ${NPM_TOKEN}", "aws configure get aws_access_key_id",
    "aws s3 cp key.txt s3://bucket/key.txt",
)
