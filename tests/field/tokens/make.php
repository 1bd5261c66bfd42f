<?php // Tokens without a library; see make.py.
$key = getenv("JWT_SECRET_KEY");
$b64 = fn($bytes) => rtrim(strtr(base64_encode($bytes), "+/", "-_"), "=");
$sign = function ($claims) use ($key, $b64) {
    $signed = $b64(json_encode(["alg" => "HS256", "typ" => "JWT"])) . "." . $b64(json_encode($claims));
    return $signed . "." . $b64(hash_hmac("sha256", $signed, $key, true));
};
foreach ([
    ["time()", "ok", ["sub" => "alice", "exp" => time() + 300]],
    ["microtime(true)", "ok", ["sub" => "alice", "exp" => microtime(true) + 300]],
    ["(string) strtotime", "`exp` is a text", ["sub" => "alice", "exp" => (string) strtotime("+5 minutes")]],
] as [$form, $expected, $claims]) {
    echo implode("\t", ["PHP, no library", $form, $expected, $sign($claims)]), "\n";
}
