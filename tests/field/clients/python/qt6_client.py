from PyQt6.QtCore import QCoreApplication, QUrl
from PyQt6.QtWebSockets import QWebSocket
from room import URL, reply

application = QCoreApplication([])
socket = QWebSocket()


def received(text):
    if answer := reply(text):
        socket.sendTextMessage(answer)


def ended():
    code = socket.closeCode()
    print("closed", getattr(code, "value", code), socket.closeReason())
    application.quit()


socket.textMessageReceived.connect(received)
socket.disconnected.connect(ended)
socket.open(QUrl(URL))
application.exec()
