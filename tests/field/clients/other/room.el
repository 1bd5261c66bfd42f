;;; room.el --- a client with websocket.el  -*- lexical-binding: t -*-
(require 'package)
(package-initialize)
(require 'json)
(require 'websocket)

(defvar ended nil)

(defun received (socket frame)
  (let* ((text (websocket-frame-text frame))
         (message (json-read-from-string text))
         (type (alist-get 'type message)))
    (message "%s" text) ; to standard error, which is not buffered
    (cond ((equal type "auth_required")
           (websocket-send-text socket (json-encode `((type . "auth_token") (token . ,(getenv "TOKEN"))))))
          ((equal type "offer")
           (websocket-send-text socket (json-encode `((type . "answer") (answer . ,(make-hash-table)) (to . ,(alist-get 'from message)))))))))

(condition-case error
    (websocket-open (getenv "ROOM_URL")
                    :on-message #'received
                    :on-close (lambda (_) (message "closed") (setq ended t)))
  (error (message "refused %S" error) (setq ended t)))
(while (not ended) (accept-process-output nil 1))
